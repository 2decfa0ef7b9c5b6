"""Workdirs with real checkpoints that no training wrote."""

import contextlib
import pathlib
from typing import Any

import jax
import numpy as np

from mass_jax.config import Config
from mass_jax.method import meta_step
from mass_jax.runtime import Checkpoints
from mass_jax.training.components import assemble
from mass_jax.training.learners import mass_learner


def write_run(workdir: pathlib.Path, config: Config, **changes: Any) -> pathlib.Path:
    """Writes checkpoints of steps 1 and 2, whose weights all equal the step, with other changes to the state."""
    (workdir / "config.json").write_text(config.to_json())
    with contextlib.closing(assemble(config)) as components:
        policy = components.fresh_weights(jax.random.key(0)).policy
        state = meta_step.init_state(
            jax.random.key(0),
            mass_learner(components.config, components.rollouts.loop, components.scorer, "verifier"),
            policy,
        )
    with Checkpoints(workdir / "seed0" / "mass" / "checkpoints") as checkpoints:
        for step in (1, 2):
            filled = jax.tree.map(lambda leaf, step=step: np.full_like(leaf, step), state.policy)
            checkpoints.save(step, jax.device_put(state._replace(policy=filled, **changes)))
    return workdir
