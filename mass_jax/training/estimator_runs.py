"""Runs several adjoints on the same tasks: their rewards, times and compiled temporaries.

Shape suffixes: N problems, M examples per problem.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from absl import logging

from mass_jax import metagrad as mg
from mass_jax.metagrad import signal
from mass_jax.metagrad.benchmark_runs import interleaved, seconds_of
from mass_jax.training.compiling import announced
from mass_jax.types import PyTree

rewards_jit = jax.jit(signal.rewards, static_argnames="adaptation")
SLOW = 20.0  # seconds; a slower adjoint is timed once


class Measured(NamedTuple):
    """Result of one adjoint.

    Attributes:
        rewards_NM: the negative meta-gradient with respect to the weights.
        seconds: wall-clock time of each run, for all problems.
        temp_bytes: temporaries of the compiled program, per device.
    """

    rewards_NM: jax.Array
    seconds: tuple[float, ...]
    temp_bytes: int


def run_adjoints(
    adaptation: signal.Adaptation,
    shared: PyTree,
    hyper: PyTree,
    tasks: signal.Tasks,
    adjoints: Mapping[str, mg.Adjoint],
    *,
    key: jax.Array,
    repeats: int,
    poll: Callable[[], None] = lambda: None,
) -> dict[str, Measured]:
    """Computes the rewards of the same tasks with several adjoints.

    All programs are compiled before any is timed, and each repetition runs all of them in turn, so that a change of the
    machine's load meets all adjoints, after a warm-up of each. One that takes more than 20 seconds runs once.

    Args:
        adaptation: the inner loop; its adjoint is replaced.
        shared: arrays common to all tasks.
        hyper: hyperparameters of the optimizer.
        tasks: the tasks.
        adjoints: adjoints by name.
        key: random key of evolution strategies, split by problem.
        repeats: number of timed runs of each adjoint.
        poll: called between programs; it may raise.

    Returns:
        The results by name.
    """
    count = len(tasks.weights_NM)
    arguments = (shared, hyper, tasks, jax.random.split(key, count))
    programs: dict[str, Any] = {}
    for name, adjoint in adjoints.items():
        poll()
        one = dataclasses.replace(adaptation, adjoint=adjoint)
        with announced(f"{name}, K={adaptation.num_steps}, {count} problems"):
            programs[name] = rewards_jit.lower(one, *arguments).compile()
    rewards: dict[str, jax.Array] = {}

    def run(name: str) -> jax.Array:
        poll()
        rewards[name] = programs[name](*arguments)
        return rewards[name]

    # The first run of a slow adjoint counts; that of the others is a warm-up.
    seconds = {name: [seconds_of(functools.partial(run, name))] for name in programs}
    fast = {name: functools.partial(run, name) for name in programs if seconds[name][0] <= SLOW}
    seconds |= {name: [] for name in fast}
    for turn, times in enumerate(interleaved(fast, repeats, warm_up=False), 1):
        for name, each in times.items():
            seconds[name].append(each)
            logging.info("run %d of %d: %s took %.2f s", turn, repeats, name, each)
    return {
        name: Measured(rewards[name], tuple(seconds[name]), program.memory_analysis().temp_size_in_bytes)
        for name, program in programs.items()
    }
