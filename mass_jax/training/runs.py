"""Trains a run of the table of rows: MASS, one of its controls, or a baseline."""

import pathlib

from mass_jax import runtime
from mass_jax.rows import TRAINING_RUNS
from mass_jax.tasks.base import Problems
from mass_jax.training import train_solver
from mass_jax.training.components import Components
from mass_jax.training.train import Trained, train_mass


def train_run(
    components: Components, run: str, problems: Problems, seed: int, workdir: pathlib.Path, stop: runtime.Stop
) -> Trained:
    """Trains one run, resuming from its last checkpoint.

    Args:
        components: the components of the run.
        run: key of `mass_jax.rows.TRAINING_RUNS`.
        problems: the problems of the seed.
        seed: random seed.
        workdir: directory of the run.
        stop: polled between phases.
    """
    chosen = TRAINING_RUNS[run]
    if chosen.outer is not None:
        return train_mass(
            components,
            problems.train,
            seed=seed,
            outer=chosen.outer,
            workdir=workdir,
            stop=stop,
            control=chosen.control,
        )
    trainers = {"solver_grpo": train_solver.train_solver_grpo, "solver_sft": train_solver.train_solver_sft}
    train_solver_only = trainers[chosen.learner]
    weights = train_solver_only(components, problems.train, seed=seed, workdir=workdir, stop=stop)
    return Trained(weights, None)
