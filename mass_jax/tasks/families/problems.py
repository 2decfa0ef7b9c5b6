"""Training and test problems of the families; their pairs of operands are disjoint."""

import functools
import random
from collections.abc import Sequence

from mass_jax.config import Config
from mass_jax.config.fields import nearest
from mass_jax.errors import UserError
from mass_jax.tasks import example_form
from mass_jax.tasks.base import Example, Problem, Problems
from mass_jax.tasks.families.family import FAMILIES, Fact, Form
from mass_jax.tasks.sides import Side, side_of


def side_of_fact(fact: Fact) -> Side:
    """Returns the side of a fact, by its operands.

    Example:
        >>> side_of_fact(Fact("*", 6, 7)) == side_of_fact(Fact("*", 7, 6)) == side_of_fact(Fact("+", 6, 7))
        True
    """
    low, high = fact.operands
    return side_of(f"{low} {high}")


def open_problems(config: Config, seed: int) -> Problems:
    """Draws the training and evaluation problems of a run.

    Args:
        config: Settings of the run.
        seed: Random seed of meta-training.

    Raises:
        UserError: If a family is unknown or on both sides, or there are too few problems.
    """
    test = () if config.families_test == ("none",) else _known("families_test", config.families_test)
    if config.families_train == ("all",):
        train = tuple(family for family in FAMILIES if family not in test)
    else:
        train = _known("families_train", config.families_train)
    if both := set(train) & set(test):
        raise UserError(f"--families_test={min(both)} is also in --families_train; unseen families must be others")
    if not train:
        raise UserError("--families_test names all families, so none is left to train on; leave some out")
    worked = config.example_form == example_form.WORKED
    draw = functools.partial(draw_problems, seed=seed, worked=worked)
    count = config.num_eval_problems
    seen = draw(Side.TEST, count, families=train)
    columns = {"unseen": draw(Side.TEST, count, families=test), "seen": seen} if test else {"test": seen}
    problems = draw(Side.TRAIN, config.num_train_problems, families=train)
    return Problems(problems, columns, lambda p, count: oracle_examples(p, count, seed, worked))


def _known(flag: str, names: Sequence[str]) -> tuple[str, ...]:
    """Returns distinct names of families; raises a UserError for others."""
    for name in names:
        if name not in FAMILIES:
            raise UserError(f"--{flag}={name!r} is unknown; {nearest(name, FAMILIES)}")
    return tuple(dict.fromkeys(names))


def draw_problems(
    side: Side, count: int, seed: int, worked: bool = False, families: Sequence[str] = tuple(FAMILIES)
) -> list[Problem]:
    """Samples distinct problems from families in turn; exhausted families are skipped.

    Args:
        side: Side of their operands.
        count: Number of problems.
        seed: Random seed.
        worked: Whether gold solutions include the step.
        families: Names of the families. Which problems a family contributes first does not depend on the others.

    Returns:
        `count` problems.

    Raises:
        UserError: If all families together have fewer problems.
    """
    rng = random.Random(f"mass families {seed} {side.value}")
    everything = {family: _shuffled(family, side, rng, worked) for family in FAMILIES}
    stock = {family: everything[family] for family in families}
    if count > (total := sum(map(len, stock.values()))):
        raise UserError(f"{count} {side.value} problems requested, but the families have {total}; request fewer")
    drawn: list[Problem] = []
    while len(drawn) < count:
        for family in stock:
            if stock[family] and len(drawn) < count:
                drawn.append(stock[family].pop())
    return drawn


def oracle_examples(problem: Problem, count: int, seed: int, worked: bool = False) -> list[Example]:
    """Samples distinct correct examples of the target problem's family with training operands.

    Args:
        problem: Target problem; never sampled itself.
        count: Number of examples.
        seed: Random seed.
        worked: Whether solutions include the step.

    Raises:
        UserError: If the family has fewer training problems.
    """
    rng = random.Random(f"mass families oracle {seed} {problem.id}")
    others = [p for p in _shuffled(problem.subject, Side.TRAIN, rng, worked) if p.id != problem.id]
    if count > len(others):
        raise UserError(f"{count} correct examples requested, but family {problem.subject!r} has {len(others)}")
    return [Example(p.problem, p.solution) for p in others[:count]]


def _shuffled(family: str, side: Side, rng: random.Random, worked: bool) -> list[Problem]:
    """Returns all problems of a family and a side in random order, alternating between its forms."""
    by_form = []
    for number, form in enumerate(FAMILIES[family]):
        facts = [Fact(form.operation, a, b) for a in form.first for b in form.second]
        chosen = [fact for fact in facts if side_of_fact(fact) is side]
        rng.shuffle(chosen)
        by_form.append([_problem(family, number, form, fact, worked) for fact in chosen])
    shortest = min(map(len, by_form))
    return [problem for row in zip(*(problems[:shortest] for problems in by_form), strict=True) for problem in row]


def _problem(family: str, number: int, form: Form, fact: Fact, worked: bool) -> Problem:
    name = f"{family}/{number}/{fact.a},{fact.b}"
    answer = str(form.answer(fact))
    text = form.write(fact, random.Random(f"mass families text {name}"))
    solution = form.step(fact) if worked else answer
    return Problem(id=name, problem=text, solution=solution, answer=answer, subject=family)
