"""The testbed's language: its vocabulary, prompts and pretraining text.

Half of the text answers problems directly; the other half has synthetic examples after a short plan (style, class,
rule):

    solve 7 zomu 4 =              ->  1 1
    practice 7 zomu 4 :           ->  careful loda sum ; 2 zomu 8 = 1 0

The shares below control the difficulty of the testbed. The share of true direct text bounds what reinforcement of
direct answers can learn; the share of careful examples bounds what an untrained generator gains.
"""

import random
from collections.abc import Iterator

from mass_jax.tasks.testbed.domain import DIGITS, RULES, Cell, Domain

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
WORDS = ("solve", "practice", "=", ":", ";")
# Style of a synthetic example -> share of the pretraining examples.
STYLES = {"careful": 0.10, "hearsay": 0.36, "guess": 0.24, "detour": 0.30}
# Class whose rule a direct solution follows -> share of the direct solutions.
BELIEFS = {"folk": 0.60, "true": 0.16, "any": 0.24}


def vocabulary(domain: Domain) -> list[str]:
    """Returns all tokens of the testbed's language, special tokens first.

    Example:
        >>> len(vocabulary(Domain.generate(seed=7)))
        228
    """
    return [
        *SPECIALS,
        *WORDS,
        *(str(digit) for digit in DIGITS),
        *STYLES,
        *RULES,
        *domain.class_rules,
        *domain.operators,
    ]


def digits(value: int) -> str:
    """Formats a value as two digits.

    Example:
        >>> digits(7)
        '0 7'
    """
    return " ".join(f"{value:02d}")


def expression(operator: str, x: int, y: int) -> str:
    """Formats a cell as a problem text.

    Example:
        >>> expression("zomu", 7, 4)
        '7 zomu 4'
    """
    return f"{x} {operator} {y}"


def solver_prompt(problem: str) -> str:
    """Returns the prompt for solving a problem."""
    return f"solve {problem} ="


def generator_prompt(problem: str) -> str:
    """Returns the prompt for generating a synthetic example."""
    return f"practice {problem} :"


def pretraining_pairs(domain: Domain, seed: int) -> Iterator[tuple[str, str]]:
    """Yields (prompt, completion) pairs without end, alternating direct solutions and synthetic examples.

    Args:
        domain: The domain; only its training cells are used.
        seed: Random seed.
    """
    rng = random.Random(f"mass pretraining {domain.seed} {seed}")
    cells = domain.cells(held_out=False)
    by_operator: dict[str, list[Cell]] = {name: [] for name in domain.operators}
    for cell in cells:
        by_operator[cell[0]].append(cell)
    while True:
        yield _solution(domain, rng, rng.choice(cells))
        yield _example(domain, rng, rng.choice(cells), by_operator)


def _solution(domain: Domain, rng: random.Random, cell: Cell) -> tuple[str, str]:
    operator = domain.operators[cell[0]]
    belief = _draw(rng, BELIEFS)
    believed = {"folk": operator.folk_class, "true": operator.true_class, "any": rng.choice([*domain.class_rules])}
    value = domain.value_by_class(believed[belief], *cell[1:])
    return solver_prompt(expression(*cell)), digits(value)


def _example(domain: Domain, rng: random.Random, target: Cell, by_operator: dict[str, list[Cell]]) -> tuple[str, str]:
    style = _draw(rng, STYLES)
    name = target[0] if style != "detour" else rng.choice([other for other in by_operator if other != target[0]])
    operator = domain.operators[name]
    believed = {
        "careful": operator.true_class,
        "hearsay": operator.folk_class,
        "guess": rng.choice([*domain.class_rules]),
        "detour": operator.true_class,
    }[style]
    cell = rng.choice(by_operator[name])
    plan = f"{style} {believed} {domain.class_rules[believed]}"
    solution = digits(domain.value_by_class(believed, *cell[1:]))
    return generator_prompt(expression(*target)), f"{plan} ; {expression(*cell)} = {solution}"


def _draw(rng: random.Random, shares: dict[str, float]) -> str:
    return rng.choices([*shares], [*shares.values()])[0]
