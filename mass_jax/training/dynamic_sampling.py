"""Dynamic sampling: replaces problems whose attempts are all right or all wrong.

Shape suffixes: N problems per step, J attempts per problem.
"""

import random
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax import runtime
from mass_jax.method import generate
from mass_jax.tasks.base import Problem
from mass_jax.training.collect import Collected
from mass_jax.types import PyTree

KEYS_OF_A_DRAW = 4  # a step folds smaller numbers into its key


def collect_with_signal(
    collect: Callable[[list[Problem], jax.Array], Collected],
    parse: Callable[[list[Problem], list[list[str]]], generate.SyntheticExamples],
    feed: runtime.Feed,
    first: list[Problem],
    redraw: Callable[[int], list[Problem]],
    key: jax.Array,
    bound: int,
) -> tuple[Collected, int]:
    """Samples one step, and redraws while some problem's attempts are all right or all wrong.

    A redraw samples as many other problems as the step has. Those with attempts of both kinds take the places of
    problems without, in order; places that are still open after the last redraw keep their problem. The choice depends
    on the verdicts of all processes, which therefore agree on it.

    Args:
        collect: samples problems under a random key.
        parse: parses the texts of this process's problems.
        feed: moves the problems of this process to the mesh and back.
        first: the problems of the step.
        redraw: returns the problems of redraw 1, 2, ...
        key: random key of the step.
        bound: largest number of redraws.

    Returns:
        The samples to train on, and the number of redraws.

    Source: Yu et al. 2025, DAPO, section 3.2 (dynamic sampling).
    """
    current, count = collect(first, key), len(first)
    for number in range(1, bound + 1):
        mixed_N = _mixed(feed, current)
        if mixed_N.all():
            return current, number - 1
        other = collect(redraw(number), jax.random.fold_in(key, KEYS_OF_A_DRAW + number))
        current = _merged(feed, parse, current, other, replacements(mixed_N, _mixed(feed, other)), count)
    return current, bound


def replacements(mixed_N: np.ndarray, other_N: np.ndarray) -> np.ndarray:
    """Returns which problems to keep, as positions in the N current problems followed by the N redrawn ones.

    Args:
        mixed_N: whether the attempts of each current problem are neither all right nor all wrong.
        other_N: the same for the redrawn problems.

    >>> replacements(np.array([True, False, False]), np.array([False, True, False])).tolist()
    [0, 4, 2]
    """
    index_N = np.arange(len(mixed_N))
    places, found = np.flatnonzero(~mixed_N), np.flatnonzero(other_N)
    filled = min(len(places), len(found))
    index_N[places[:filled]] = len(mixed_N) + found[:filled]
    return index_N


def redraws(count: int, seed: int, step: int, first: Sequence[int], number: int) -> list[int]:
    """Returns the numbers of the problems of redraw 1, 2, ..., none of which the step has drawn before.

    If fewer problems than a step needs are left, the redraw takes any.

    Args:
        count: number of training problems.
        seed: random seed.
        step: index of the step.
        first: numbers of the step's first problems.
        number: number of the redraw, from 1.

    >>> sorted(redraws(6, 0, 0, [0, 1], 1) + redraws(6, 0, 0, [0, 1], 2))
    [2, 3, 4, 5]
    """
    rest = [i for i in range(count) if i not in {*first}]
    random.Random(f"mass redraw {seed} {step}").shuffle(rest)
    start, stop = (number - 1) * len(first), number * len(first)
    if stop <= len(rest):
        return rest[start:stop]
    return random.Random(f"mass redraw {seed} {step} {number}").choices(range(count), k=len(first))


def _mixed(feed: runtime.Feed, collected: Collected) -> np.ndarray:
    """Returns whether the attempts of each problem of all processes are neither all right nor all wrong."""
    count = len(collected.tasks)
    share_N = np.asarray(feed.get(collected.batch.right_NJ, count)).mean(-1)
    own = ((share_N > 0) & (share_N < 1)).tolist()
    return np.array(runtime.gather_rows(runtime.mine(feed.rows(count), own)), bool)


def _merged(
    feed: runtime.Feed,
    parse: Callable[[list[Problem], list[list[str]]], generate.SyntheticExamples],
    current: Collected,
    other: Collected,
    index_N: np.ndarray,
    count: int,
) -> Collected:
    """Returns the problems at the positions of `replacements`, with their samples."""
    rows = feed.rows(count)
    taken = _take(current.batch, other.batch, index_N)
    batch = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), taken, current.batch)
    texts = [
        text for one in (current, other) for text in runtime.gather_rows(runtime.mine(rows, one.synthetic.texts_NM))
    ]
    tasks = [[*current.tasks, *other.tasks][i] for i in index_N]
    synthetic = parse(feed.mine(tasks), feed.mine([texts[i] for i in index_N]))
    sampled = {"examples": feed.get(batch.generated, count), "attempts": feed.get(batch.solutions, count)}
    return Collected(tasks, batch, synthetic, sampled)


@jax.jit
def _take(current: PyTree, other: PyTree, index_N: jax.Array) -> PyTree:
    """Returns the rows at `index_N` of two batches, one after the other."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b])[index_N], current, other)
