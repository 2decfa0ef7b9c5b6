"""The testbed's language: its vocabulary and the texts the small model is pretrained on.

Half of the text answers problems directly; half writes practice examples under a short plan (style, class, rule):

    solve 7 zomu 4 =              ->  1 1
    practice 7 zomu 4 :           ->  careful loda sum ; 2 zomu 8 = 1 0

The shares below are the dials of the testbed, measured in a planning study: how often direct text is true bounds what
reinforcement of direct answers can amortize; how often a self-written example is careful bounds what untrained
self-synthesis gains.
"""

import random
from collections.abc import Iterator

from mass_jax.tasks.testbed.domain import DIGITS, RULES, Cell, Domain

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
WORDS = ("solve", "practice", "=", ":", ";")
# style of a self-written example -> share of pretraining text
STYLES = {"careful": 0.10, "hearsay": 0.36, "guess": 0.24, "detour": 0.30}
# whose rule a direct solution follows -> share
BELIEFS = {"folk": 0.60, "true": 0.16, "any": 0.24}


def vocabulary(domain: Domain) -> list[str]:
    """Every token of the testbed's language, specials first.

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
    """A value as its two digits.

    >>> digits(7)
    '0 7'
    """
    return " ".join(f"{value:02d}")


def expression(operator: str, x: int, y: int) -> str:
    """The text of a problem.

    >>> expression("zomu", 7, 4)
    '7 zomu 4'
    """
    return f"{x} {operator} {y}"


def solver_prompt(problem: str) -> str:
    return f"solve {problem} ="


def generator_prompt(problem: str) -> str:
    return f"practice {problem} :"


def pretraining_pairs(domain: Domain, seed: int) -> Iterator[tuple[str, str]]:
    """Endless (prompt, completion) pairs, solutions and self-written examples in turn, over training cells only."""
    rng = random.Random(f"mass pretraining {domain.seed} {seed}")
    cells = domain.cells(held_out=False)
    by_operator: dict[str, list[Cell]] = {name: [] for name in domain.operators}
    for cell in cells:
        by_operator[cell[0]].append(cell)
    while True:
        yield _solution(domain, rng, rng.choice(cells))
        yield _practice(domain, rng, rng.choice(cells), by_operator)


def _solution(domain: Domain, rng: random.Random, cell: Cell) -> tuple[str, str]:
    operator = domain.operators[cell[0]]
    belief = _draw(rng, BELIEFS)
    believed = {"folk": operator.folk_class, "true": operator.true_class, "any": rng.choice([*domain.class_rules])}
    value = domain.value_by_class(believed[belief], *cell[1:])
    return solver_prompt(expression(*cell)), digits(value)


def _practice(domain: Domain, rng: random.Random, target: Cell, by_operator: dict[str, list[Cell]]) -> tuple[str, str]:
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
