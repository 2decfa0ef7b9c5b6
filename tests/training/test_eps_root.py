"""Choice of eps_root from the scale of the inner gradient."""

import contextlib
import dataclasses

import numpy as np
import pytest

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.training.components import assemble, with_stored_eps_root
from mass_jax.training.eps_root import auto_eps_root, round_to_half_decade


@pytest.fixture(scope="module")
def components():
    with contextlib.closing(assemble(Config(inner_optimizer="adam", inner_lr=0.03, num_train_problems=40))) as parts:
        yield parts


def test_auto_exceeds_squared_gradients_of_testbed(components):
    """The root mean square of the entries is about 0.04."""
    assert 3e-3 <= components.rollouts.loop.eps_root <= 1e-1


def test_auto_follows_scale_of_gradient(components):
    """All examples are the same, so ten times as many have a gradient ten times as large; both are rounded."""
    rollouts, weights, problems = components.rollouts, components.pretrained(), components.problems(0).train[:1]
    few, many = (auto_eps_root(rollouts, weights, problems, count) for count in (2, 20))
    assert 30 * few < many < 310 * few


def test_auto_leaves_given_value():
    with contextlib.closing(assemble(Config(inner_optimizer="adam", inner_eps_root="1e-6"))) as parts:
        assert parts.rollouts.loop.eps_root == 1e-6


@pytest.mark.parametrize(("value", "rounded"), [(1e-8, 1e-8), (1.9e-8, 3e-8), (5.0, 3.0), (6.0, 10.0), (2.4e-3, 3e-3)])
def test_rounding_uses_half_decades(value, rounded):
    assert round_to_half_decade(value) == rounded


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "small"])
def test_config_rejects_invalid_eps_root(value):
    with pytest.raises(ValueError, match="use auto or a positive number"):
        Config(inner_eps_root=value)


def test_stored_value_outlives_another_measurement(components, tmp_path):
    first = with_stored_eps_root(components, tmp_path)
    (tmp_path / "inner_eps_root.json").write_text('{"eps_root": 0.25}')
    assert with_stored_eps_root(components, tmp_path).rollouts.loop.eps_root == first.rollouts.loop.eps_root
    (tmp_path / "inner_eps_root.json").write_text('{"eps_root": 0.25}')
    (tmp_path / "metrics.jsonl").write_text("{}")  # the run has begun
    assert with_stored_eps_root(components, tmp_path).rollouts.loop.eps_root == 0.25
    (tmp_path / "inner_eps_root.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        with_stored_eps_root(components, tmp_path)


def test_auto_skips_solutions_that_do_not_fit(components):
    dialogue, problems = components.rollouts.dialogue, components.problems(0).train[:3]
    long = dataclasses.replace(problems[0], solution=" ".join([problems[0].solution] * 9))
    fitting = dialogue.fitting_gold([long, *problems[1:]])
    np.testing.assert_array_equal(fitting.tokens_BT, dialogue.gold(problems[1:]).text.tokens_BT[:, 0])
    assert dialogue.fitting_gold([long]) is None
