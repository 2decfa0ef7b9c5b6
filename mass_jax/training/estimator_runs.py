"""Runs several adjoints on the same tasks: their rewards, times and compiled temporaries.

Shape suffixes: N problems, M examples per problem.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from absl import logging

from mass_jax import metagrad as mg
from mass_jax.metagrad import signal
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
    machine's load meets all adjoints. One that takes more than 20 seconds runs once.

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
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    rewards: dict[str, jax.Array] = {}
    for number in range(1, repeats + 1):
        for name, program in programs.items():
            if max(seconds[name], default=0) > SLOW:
                continue
            poll()
            start = time.perf_counter()
            rewards[name] = jax.block_until_ready(program(*arguments))
            seconds[name].append(time.perf_counter() - start)
            logging.info("run %d of %d: %s took %.2f s", number, repeats, name, seconds[name][-1])
    return {
        name: Measured(rewards[name], tuple(seconds[name]), program.memory_analysis().temp_size_in_bytes)
        for name, program in programs.items()
    }
