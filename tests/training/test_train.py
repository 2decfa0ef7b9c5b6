"""Tests for mass_jax.training.train.run_steps."""

import jax.numpy as jnp
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.training.train import run_steps


class Killed(Exception):
    """Stands for the end of the process between two checkpoints."""


def test_killed_and_resumed_training_is_one_curve(tmp_path):
    workdir = tmp_path / "seed0" / "mass"
    config = Config(steps=5, warmup_steps=1, checkpoint_every=2, tracker=("tensorboard",))

    def train(killed_at):
        def one_step(i, state):
            if i == killed_at:
                raise Killed
            return {"count": state["count"] + 1}, {"reward": float(state["count"])}

        return run_steps("mass", workdir, {"count": jnp.zeros(())}, one_step, config, runtime.Stop())

    with pytest.raises(Killed):
        train(killed_at=3)  # the checkpoint has 2 steps, the tracker 3
    assert train(killed_at=None)["count"] == 5
    events = EventAccumulator(str(workdir / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward")] == [(i, float(i)) for i in range(5)]
    assert [e.step for e in events.Scalars("step_time")] == list(range(5))
