"""Selection of few-shot examples from a problem set."""

import collections
import random
from collections.abc import Sequence

from mass_jax.tasks.base import Example, Problem
from mass_jax.tasks.grading.latex import last_boxed
from mass_jax.tasks.math.prompts import Shots


def take_shots(problems: Sequence[Problem], count: int, seed: int) -> tuple[Shots, list[Problem]]:
    r"""Samples few-shot examples; each shot is a target problem and an example, two problems of one subject.

    Args:
        problems: Problem set; its order does not matter.
        count: Number of shots.
        seed: Random seed.

    Returns:
        The shots, and the remaining problems.

    Raises:
        ValueError: If too few problems share a subject.

    Example:
        >>> two = [Problem("a", "1 + 1?", "2", "2", "sums"), Problem("b", "2 + 2?", r"So \boxed{4}.", "4", "sums")]
        >>> shots, left = take_shots(two, 1, seed=0)
        >>> sorted(shot.solution for shot in (shots.generator[0][1], *shots.solved)), left
        (['2\n\\boxed{2}', 'So \\boxed{4}.'], [])
    """
    by_subject = collections.defaultdict(list)
    for problem in sorted(problems, key=lambda problem: problem.id):
        by_subject[problem.subject].append(problem)
    draw = random.Random(f"mass shots {seed}")
    pairs = []
    for of_subject in by_subject.values():
        draw.shuffle(of_subject)
        pairs += list(zip(of_subject[::2], of_subject[1::2], strict=False))
    if count > len(pairs):
        raise ValueError(
            f"{count} shots requested, but the problems provide {len(pairs)}, two of one subject each; request fewer"
        )
    chosen = draw.sample(pairs, count)
    taken = {problem.id for pair in chosen for problem in pair}
    shots = Shots(
        solved=tuple(_boxed(target) for target, _ in chosen),
        generator=tuple((target.problem, _boxed(example)) for target, example in chosen),
    )
    return shots, [problem for problem in problems if problem.id not in taken]


def _boxed(problem: Problem) -> Example:
    """Appends a box to solutions without one (GSM8K, SVAMP), since the prompts ask for it."""
    if last_boxed(problem.solution) is not None:
        return Example(problem.problem, problem.solution)
    return Example(problem.problem, f"{problem.solution}\n\\boxed{{{problem.answer}}}")
