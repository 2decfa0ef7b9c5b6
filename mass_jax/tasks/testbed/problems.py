"""Problem sets of the testbed: what is meta-trained on, and what is evaluated."""

import enum
import random

from mass_jax.errors import UserError
from mass_jax.tasks.base import Example, Problem
from mass_jax.tasks.testbed.domain import Cell, Domain
from mass_jax.tasks.testbed.text import digits, expression


class Split(enum.Enum):
    """Which problems: meta-training, or held-out cells of operators seen or unseen in meta-training."""

    TRAIN = "train"
    SEEN = "seen"
    UNSEEN = "unseen"


def meta_operators(domain: Domain, seed: int) -> tuple[list[str], list[str]]:
    """Splits the operators into a random half for meta-training and the other half, subject by subject.

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
    """Draws distinct problems of a split, in random order.

    Args:
        split: TRAIN takes cells of the pretraining text and operators of the seen half; SEEN and UNSEEN take held-out
            cells, which no training text holds.
        count: how many.
        seed: of the halves and of the draw.

    Raises:
        UserError: if the split holds fewer than `count`.
    """
    seen, unseen = meta_operators(domain, seed)
    names = set(unseen if split is Split.UNSEEN else seen)
    cells = [cell for cell in domain.cells(held_out=split is not Split.TRAIN) if cell[0] in names]
    if count > len(cells):
        raise UserError(f"{count} problems asked of split {split.value!r}, which has {len(cells)}; ask for fewer")
    rng = random.Random(f"mass problems {domain.seed} {seed} {split.value}")
    return [_problem(domain, cell) for cell in rng.sample(cells, count)]


def oracle_examples(domain: Domain, problem: Problem, count: int, seed: int) -> list[Example]:
    """Right examples of the target's own operator, from training cells: what a perfect generator could write."""
    rng = random.Random(f"mass oracle {seed} {problem.id}")
    cells = [cell for cell in domain.cells(held_out=False) if cell[0] == problem.cluster]
    if count > len(cells):
        raise UserError(f"{count} right examples asked of operator {problem.cluster!r}, which has {len(cells)}")
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
