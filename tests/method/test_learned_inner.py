"""Hyperparameters that meta-training learns: parameterization, exactness and one-line errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax import metagrad as mg
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.method import learning
from mass_jax.method.learned_inner import LearnedInner, learned_names
from mass_jax.method.models import Weights
from mass_jax.training.inner_optimizer import fixed_optimizer, learned_inner


def learned(**changes):
    return learned_inner(Config(**changes), 1e-3)


def test_start_equals_configured_optimizer():
    made = learned(inner_optimizer="adam(b1=0.8)", inner_lr=0.03, learn="inner_lr,b1,eps_root")
    values = {name: float(value) for name, value in made.values(made.start()).items()}
    assert values == pytest.approx({"inner_lr": 0.03, "b1": 0.8, "eps_root": 1e-3}, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learn": "b1"}, "--learn=b1: --inner_optimizer='sgd' gives no number for b1; give one number"),
        ({"learn": "inner_lr", "inner_lr": 0.0}, "--learn=inner_lr: its value 0 must be above 0"),
        ({"learn": "b1", "inner_optimizer": "adam(b1=1.5)"}, "--learn=b1: its value 1.5 must be between 0 and 1"),
        ({"learn": "step_size", "inner_optimizer": "sgd | scale(2.0) | scale(3.0)"}, "has different values of step_"),
        (
            {"learn": "inner_lr", "inner_optimizer": "sgd(cosine_decay_schedule(0.2, 4))"},
            "gives no number for inner_lr",
        ),
        ({"learn": "inner_lr", "inner_optimizer": "custom"}, "'custom' stands for an optimizer from Python"),
    ],
)
def test_unusable_names_are_refused_in_one_line(changes, message):
    with pytest.raises(UserError) as caught:
        learned(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_schedules_can_be_learned():
    made = learned(inner_optimizer="sgd(cosine_decay_schedule(0.2, 4))", learn="init_value")
    assert float(made.values(made.start())["init_value"]) == pytest.approx(0.2)


def test_frozen_settings_build_the_learned_optimizer():
    config = Config(
        inner_optimizer="clip(1.0) | adam(b1=0.8)", learn="inner_lr,b1", inner_lr=0.03, inner_eps_root="1e-3"
    )
    made = learned_inner(config, 1e-3)
    inner = jax.tree.map(lambda leaf: leaf + 0.5, made.start())
    frozen = made.frozen(config, inner)
    assert (frozen.learn, frozen.inner_eps_root, learned_names(config.learn)) == ("", "0.001", ("inner_lr", "b1"))
    assert frozen.inner_lr == pytest.approx(0.03 * np.exp(0.5), rel=1e-5)
    params = {"w": jnp.ones(3)}
    with jax.numpy_dtype_promotion("standard"):
        one, two = (
            optimizer.update(params, optimizer.init(params), params)[0]["w"]
            for optimizer in (fixed_optimizer(frozen, 1e-3), made.build(inner))
        )
    np.testing.assert_allclose(one, two, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class ToyLoop:
    """The part of `LoraLoop` that `learning.bilevel` uses."""

    learned: LearnedInner
    optimizer: None = None

    def loss(self, weights, count):
        return mg.WeightedLoss(lambda params, batch: (params - batch) ** 2)


def test_meta_gradient_equals_central_differences(x64):
    loop = ToyLoop(LearnedInner("sgd(momentum=0.5)", 0.1, 1e-8, ("inner_lr", "momentum")))
    scores, batch = jnp.array([0.5, 0.3, 0.8]), jnp.array([1.0, -1.0, 2.0])

    def run(scores, inner):
        loss, meta, optimizer = learning.bilevel(loop, Weights({}, {}, inner), scores)
        return mg.meta_gradient(
            loss, lambda params, target: (params - target) ** 2, jnp.float64(0.2), meta, batch, jnp.float64(1.5),
            optimizer=optimizer, num_steps=3, adjoint=mg.WeightedMixedMode(),
        )  # fmt: skip

    run, inner = jax.jit(run), jax.tree.map(jnp.float64, loop.learned.start())
    found, by_hyperparameter = learning.split(run(scores, inner))
    alone, none = learning.split(found)
    assert (alone, none) == (found, None)
    for name in inner:
        above, below = (run(scores, inner | {name: inner[name] + step}).value for step in (1e-5, -1e-5))
        assert float(by_hyperparameter[name]) == pytest.approx(float(above - below) / 2e-5, rel=1e-7)
    shift = jnp.array([1e-5, 0, 0])
    above, below = (run(scores + step * shift, inner).value for step in (1, -1))
    assert float(found.meta[0]) == pytest.approx(float(above - below) / 2e-5, rel=1e-7)
