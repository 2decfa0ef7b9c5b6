"""Tests of groups of correct and wrong examples, on the testbed."""

import contextlib

import jax
import numpy as np
import pytest

from mass_jax.config import Config
from mass_jax.metagrad import signal
from mass_jax.training import half_right, validation
from mass_jax.training.components import assemble
from mass_jax.training.inner_setting import InnerSetting


@pytest.fixture(scope="module")
def components():
    with contextlib.closing(assemble(Config(num_train_problems=30))) as components:
        yield components


def test_rewards_tell_correct_from_wrong_examples(components):
    problems, weights = components.problems(0), components.pretrained()
    drawn = half_right.draw(
        components.rollouts,
        weights,
        problems.train[:24],
        problems.oracle,
        num_examples=4,
        key=jax.random.key(0),
        score=0.5,
    )
    assert drawn.kept_NM.all()
    np.testing.assert_array_equal(drawn.useful_NM[:, ::2], True)
    assert 0.25 <= 1 - drawn.useful_NM.mean() <= 0.5  # of four examples, one or both of every second one
    nothing = signal.Options(finite_differences=False, add_one=False, directions=0, precision=False)
    setting = InnerSetting("sgd", 0.2, 1e-8, 2)
    with jax.numpy_dtype_promotion("standard"):
        report = validation.validate_setting(components.rollouts, weights, drawn, setting, "gold", 1, nothing)
    assert report["reward_auc"] > 0.6
    assert report["leave_one_out_auc"] > 0.6
