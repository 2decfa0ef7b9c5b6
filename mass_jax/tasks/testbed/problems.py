"""Training and evaluation problems of the testbed."""

import enum
import random

from mass_jax.errors import UserError
from mass_jax.tasks.base import Example, Problem
from mass_jax.tasks.testbed.domain import Cell, Domain
from mass_jax.tasks.testbed.text import digits, expression


class Split(enum.Enum):
    """Problem splits: meta-training, and held-out cells of operators seen or unseen in meta-training."""

    TRAIN = "train"
    SEEN = "seen"
    UNSEEN = "unseen"


def meta_operators(domain: Domain, seed: int) -> tuple[list[str], list[str]]:
    """Splits the operators of each subject into a random half for meta-training and the other half.

    Args:
        domain: The domain.
        seed: Random seed.

    Returns:
        (seen, unseen) operator names.
    """
    rng = random.Random(f"mass operators {domain.seed} {seed}")
    subjects: dict[str, list[str]] = {}
    for operator in domain.operators.values():
        subjects.setdefault(operator.subject, []).append(operator.name)
    seen = {name for names in subjects.values() for name in rng.sample(names, len(names) // 2)}
    return [n for n in domain.operators if n in seen], [n for n in domain.operators if n not in seen]


def draw_problems(domain: Domain, split: Split, count: int, seed: int) -> list[Problem]:
    """Samples distinct problems of a split, in random order.

    Args:
        domain: The domain.
        split: TRAIN samples cells of the pretraining text with seen operators; SEEN and UNSEEN sample held-out cells,
            which occur in no training text.
        count: Number of problems.
        seed: Random seed of the operator halves and of the sample.

    Returns:
        `count` problems.

    Raises:
        UserError: If the split has fewer problems.
    """
    seen, unseen = meta_operators(domain, seed)
    names = set(unseen if split is Split.UNSEEN else seen)
    cells = [cell for cell in domain.cells(held_out=split is not Split.TRAIN) if cell[0] in names]
    if count > len(cells):
        raise UserError(f"{count} problems requested, but split {split.value!r} has {len(cells)}; request fewer")
    rng = random.Random(f"mass problems {domain.seed} {seed} {split.value}")
    return [_problem(domain, cell) for cell in rng.sample(cells, count)]


def oracle_examples(domain: Domain, problem: Problem, count: int, seed: int) -> list[Example]:
    """Samples correct examples with the target's operator from training cells, the upper reference for a generator.

    Args:
        domain: The domain.
        problem: Target problem.
        count: Number of examples.
        seed: Random seed.

    Returns:
        `count` distinct examples.

    Raises:
        UserError: If the operator has fewer training cells.
    """
    rng = random.Random(f"mass oracle {seed} {problem.id}")
    cells = domain.cells(held_out=False, operators=[problem.cluster])
    if count > len(cells):
        raise UserError(f"{count} correct examples requested, but operator {problem.cluster!r} has {len(cells)}")
    return [Example(expression(*c), digits(domain.value(*c))) for c in rng.sample(cells, count)]


def _problem(domain: Domain, cell: Cell) -> Problem:
    operator = domain.operators[cell[0]]
    answer = digits(domain.value(*cell))
    return Problem(
        id="-".join(map(str, cell)),
        problem=expression(*cell),
        solution=answer,
        answer=answer,
        subject=operator.subject,
        cluster=operator.name,
    )
