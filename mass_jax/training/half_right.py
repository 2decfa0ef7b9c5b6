"""Groups of examples that are half correct and half wrong, to measure whether rewards tell them apart.

Examples that a model writes are rarely correct before training, so a measurement on them says little about how rewards
rank correct ones. Here every problem has both kinds, in the same form.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from mass_jax.method.models import Weights
from mass_jax.tasks.base import Example, Problem, Rejected
from mass_jax.tasks.wrong_answers import wrong_answers
from mass_jax.training import validation
from mass_jax.training.rollout import Rollouts


def draw(
    rollouts: Rollouts,
    weights: Weights,
    problems: Sequence[Problem],
    oracle: Callable[[Problem, int], list[Example]],
    *,
    num_examples: int,
    key: jax.Array,
    score: float,
) -> validation.Drawn:
    """Draws correct examples for every problem, and gives every second one the answer of another.

    Args:
        rollouts: samples and adapts; every process handles all problems.
        weights: the generator's weights.
        problems: problems of the training side.
        oracle: returns correct examples for a problem; see `mass_jax.tasks.base.Problems`.
        num_examples: number of examples per problem, M.
        key: random key.
        score: weight of every example.

    Returns:
        The examples; `useful_NM` marks the correct ones.
    """
    groups_NM = [half_right(oracle(problem, num_examples)[:num_examples]) for problem in problems]
    correct_NM = np.array([[right for _, right in group] for group in groups_NM])
    parsed_NM: list[list[Example | Rejected]] = [[example for example, _ in group] for group in groups_NM]
    synthetic = rollouts.dialogue.encode(problems, [[""] * num_examples for _ in problems], parsed_NM)
    return validation.drawn(rollouts, weights, problems, synthetic, correct_NM, key, score)


def half_right(examples: Sequence[Example]) -> list[tuple[Example, bool]]:
    """Returns the examples, every second one with the answer of another one, and whether the answer is its own.

    >>> half_right([Example("1 + 1", "2"), Example("2 + 2", "4"), Example("3 + 2", "5"), Example("1 + 2", "3")])[1]
    (Example(problem='2 + 2', solution='5'), False)
    """
    changed = wrong_answers(examples)
    mixed = [changed[i] if i % 2 else example for i, example in enumerate(examples)]
    return [(example, example.solution == old.solution) for example, old in zip(mixed, examples, strict=True)]
