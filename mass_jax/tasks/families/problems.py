"""Problem sets of the families, disjoint by operands: no fact of an evaluated problem is in any training problem."""

import enum
import random
import zlib

from mass_jax.errors import UserError
from mass_jax.tasks.base import Example, Problem
from mass_jax.tasks.families.family import FAMILIES, Fact, Form

TEST_SHARE = 3  # one pair of operands in this many is only ever tested


class Side(enum.Enum):
    """Which operands a problem may have."""

    TRAIN = "train"
    TEST = "test"


def side_of(fact: Fact) -> Side:
    """Where a fact belongs, whatever it is asked by; a hash, so that no list has to be kept.

    >>> side_of(Fact("*", 6, 7)) == side_of(Fact("*", 7, 6)) == side_of(Fact("+", 6, 7))
    True
    """
    low, high = fact.operands
    return Side.TEST if zlib.crc32(f"{low} {high}".encode()) % TEST_SHARE == 0 else Side.TRAIN


def draw_problems(side: Side, count: int, seed: int) -> list[Problem]:
    """Draws distinct problems, the families in turn; a family that has no more is passed over.

    Args:
        side: of their operands.
        count: how many.
        seed: of the draw.

    Raises:
        UserError: if all families together hold fewer.
    """
    rng = random.Random(f"mass families {seed} {side.value}")
    stock = {family: _shuffled(family, side, rng) for family in FAMILIES}
    if count > (total := sum(map(len, stock.values()))):
        raise UserError(f"{count} {side.value} problems asked of the families, which have {total}; ask for fewer")
    drawn: list[Problem] = []
    while len(drawn) < count:
        for family in FAMILIES:
            if stock[family] and len(drawn) < count:
                drawn.append(stock[family].pop())
    return drawn


def oracle_examples(problem: Problem, count: int, seed: int) -> list[Example]:
    """Right examples of the problem's own family, with operands of the training side, none of them the problem's."""
    rng = random.Random(f"mass families oracle {seed} {problem.id}")
    others = [p for p in _shuffled(problem.subject, Side.TRAIN, rng) if p.id != problem.id]
    if count > len(others):
        raise UserError(f"{count} right examples asked of family {problem.subject!r}, which has {len(others)}")
    return [Example(p.problem, p.solution) for p in others[:count]]


def _shuffled(family: str, side: Side, rng: random.Random) -> list[Problem]:
    """All problems of a family and a side; where it has several forms, each with a like share at every place."""
    by_form = []
    for number, form in enumerate(FAMILIES[family]):
        facts = [Fact(form.operation, a, b) for a in form.first for b in form.second]
        chosen = [fact for fact in facts if side_of(fact) is side]
        rng.shuffle(chosen)
        by_form.append([_problem(family, number, form, fact) for fact in chosen])
    shortest = min(map(len, by_form))
    return [problem for row in zip(*(problems[:shortest] for problems in by_form), strict=True) for problem in row]


def _problem(family: str, number: int, form: Form, fact: Fact) -> Problem:
    name = f"{family}/{number}/{fact.a},{fact.b}"
    answer = str(form.answer(fact))
    text = form.write(fact, random.Random(f"mass families text {name}"))
    return Problem(id=name, problem=text, solution=answer, answer=answer, subject=family)
