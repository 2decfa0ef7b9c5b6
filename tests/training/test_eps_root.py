"""Choice of eps_root from the scale of the inner gradient."""

import contextlib

import pytest

from mass_jax.config import Config
from mass_jax.training.components import assemble
from mass_jax.training.eps_root import auto_eps_root, round_to_half_decade


@pytest.fixture(scope="module")
def components():
    with contextlib.closing(assemble(Config(inner_optimizer="adam", inner_lr=0.03, num_train_problems=40))) as parts:
        yield parts


def test_auto_exceeds_squared_gradients_of_testbed(components):
    """The root mean square of the entries is about 0.04; see docs/results/inner_optimizers."""
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


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "small"])
def test_config_rejects_invalid_eps_root(value):
    with pytest.raises(ValueError, match="use auto or a number"):
        Config(inner_eps_root=value)
