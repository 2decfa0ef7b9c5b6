"""Tests of invalid arguments of meta_gradient and adapt: one line that names the value and the fix."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.errors import UserError

PARAMS = {"w": jnp.ones(3, jnp.float32)}
META = {"scale": jnp.ones(3, jnp.float32), "decay": jnp.float32(0.5)}


def inner(params, meta, batch):
    return jnp.sum(params["w"] * meta["scale"]) + meta["decay"] * jnp.sum(params["w"] ** 2)


def outer(params, batch):
    return jnp.sum(params["w"] ** 2)


def gradient(inner_loss=inner, outer_loss=outer, params=PARAMS, meta=META, batch=None, **settings):
    settings = {"optimizer": optax.sgd(0.1), "num_steps": 2} | settings
    return mg.meta_gradient(inner_loss, outer_loss, params, meta, batch, None, **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "lamb"}, r"optimizer='lamb' is a name; pass make_optimizer\('lamb'"),
        ({"optimizer": None}, "optimizer=None is not an optimizer"),
        ({"optimizer": optax.MultiSteps}, "optimizer=MultiSteps is a class"),
        ({"optimizer": optax.adagrad}, r"optax.adagrad is not called; pass optax.adagrad\(learning_rate\)"),
        ({"optimizer": lambda meta: 0.1}, "optimizer=0.1 is not an optimizer"),
        ({"optimizer": optax.polyak_sgd()}, "update needs 'value'"),
        ({"optimizer": optax.contrib.momo_adam(0.1)}, "update needs 'value'"),
        ({"optimizer": optax.lookahead(optax.sgd(0.1), 2, 0.5)}, "optimizer's update failed"),
        (
            {"optimizer": optax.stateless(lambda g, p: {"w": g["w"][:1]})},
            r"at \['w'\] from float32\[3\] to float32\[1\]",
        ),
        ({"params": {"w": jnp.ones(3), "steps": jnp.int32(3)}}, r"params\['steps'\] is int32"),
        ({"params": {"w": np.ones(3, complex)}}, r"params\['w'\] is complex"),
        ({"params": {"w": "x"}}, r"params\['w'\] is 'x', which is not an array"),
        ({"params": {}}, "has no leaves"),
        ({"meta": {**META, "name": "adam"}}, r"meta\['name'\] is 'adam', which is not an array"),
        ({"inner_loss": lambda p, m, b: p["w"]}, r"inner_loss returned shape \(3,\)"),
        ({"inner_loss": lambda p, m, b: (jnp.sum(p["w"]), 1)}, "inner_loss returned a tuple of 2"),
        ({"inner_loss": lambda p, m, b: None}, "inner_loss returned NoneType"),
        ({"inner_loss": None}, "inner_loss=None is not callable"),
        ({"outer_loss": lambda p, b: p["w"][:2]}, r"outer_loss returned shape \(2,\)"),
        ({"outer_loss": lambda p, b: (outer(p, b), 1)}, "outer_loss returned a tuple of 2.*pass has_aux=True"),
        ({"outer_loss": lambda p, b: 3}, "outer_loss returned int32"),
        ({"has_aux": True}, "has_aux=True needs"),
        ({"num_steps": 2.0}, "num_steps=2.0 must be a Python int"),
        ({"num_steps": True}, "num_steps=True must be a Python int"),
        ({"batch_per_step": True}, "the batch has no leaves"),
        ({"batch": jnp.ones((3, 2)), "batch_per_step": True}, r"leading axis of num_steps=2.*\(3, 2\)"),
        ({"unused_meta": "ignore"}, "unused_meta='ignore' is not one of 'error', 'zero'"),
    ],
)
@pytest.mark.parametrize("adjoint", [mg.MixedMode(), mg.ReverseUnroll()], ids=["mixed", "reverse"])
def test_meta_gradient_rejects_invalid_arguments(changes, message, adjoint):
    with pytest.raises(UserError, match=message) as caught:
        gradient(**changes, adjoint=adjoint)
    assert "\n" not in str(caught.value)


def test_weighted_loss_rejects_invalid_results():
    def of(examples, weights):
        return mg.WeightedLoss(examples)(jnp.float32(1.0), weights, jnp.ones(2))

    with pytest.raises(UserError, match="example_losses returned a tuple"):
        of(lambda p, b: (p * b, 1), jnp.ones(2))
    with pytest.raises(UserError, match="weights are a list"):
        of(lambda p, b: p * b, [1.0, 2.0])


def test_adapt_rejects_invalid_arguments():
    for changes in ({"optimizer": "adam"}, {"params": {"w": jnp.ones(3, jnp.int32)}}, {"num_steps": 1.5}):
        settings = {"params": PARAMS, "optimizer": optax.sgd(0.1), "num_steps": 2} | changes
        with pytest.raises(UserError):
            mg.adapt(inner, settings.pop("params"), META, None, **settings)


def test_meta_gradient_accepts_numbers_and_numpy():
    found = gradient(lambda p, m, b: m * p**2, lambda p, b: p**2, 1.0, 0.5)
    # p_2 = p_0 (1 - 0.2 m)^2
    np.testing.assert_allclose(found.meta, 4 * (1 - 0.2 * 0.5) ** 3 * -0.2, rtol=1e-6)
    assert gradient(params={"w": np.ones(3, np.float32)}).meta["decay"] != 0


def unused(extra, **changes):
    return gradient(meta={**META, "extra": extra, "count": 3}, **changes)


def test_meta_gradient_names_unused_meta():
    for run in (unused, jax.jit(unused), jax.vmap(unused)):
        with pytest.raises(UserError, match=r"meta\['extra'\]: neither the inner gradient nor the optimizer"):
            run(jnp.ones(2))


def test_unused_meta_zero_gives_zero():
    found = unused(jnp.ones(2), unused_meta="zero").meta
    np.testing.assert_array_equal(found["extra"], 0)
    assert found["count"] == 0
    assert found["decay"] != 0


def test_meta_outside_gradient_is_unused():
    with pytest.raises(UserError, match="extra"):
        unused(jnp.float32(1.0), inner_loss=lambda p, m, b: inner(p, m, b) + m["extra"])
    weighted = mg.WeightedLoss(lambda p, b: p["w"] * b, weights=lambda meta, batch: meta["decay"] * batch)
    with pytest.raises(UserError, match=r"meta\['scale'\]"):
        gradient(weighted, batch=jnp.ones(3))


def test_meta_used_by_optimizer_is_accepted():
    assert unused(jnp.float32(0.1), optimizer=lambda meta: optax.sgd(meta["extra"])).meta["extra"] != 0
    assert gradient(meta={"scale": jnp.zeros(3), "decay": jnp.float32(0.0)}).meta["decay"] != 0


def test_multi_steps_accumulates_in_float64(x64):
    """The meta-gradient through accumulated gradients agrees with a central difference to 1e-8."""
    inner_loss = mg.WeightedLoss(lambda params, batch: jnp.sin(params * batch) ** 2)
    batch, weights, step = jnp.array([0.3, 1.1, 0.7]), jnp.ones(3), 1e-5

    def run(weights):
        args = (inner_loss, lambda params, batch: (params - batch) ** 2, jnp.float64(0.9), weights, batch, 0.2)
        return mg.meta_gradient(*args, optimizer=optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2), num_steps=4)

    difference = (run(weights.at[1].add(step)).value - run(weights.at[1].add(-step)).value) / (2 * step)
    assert abs(run(weights).meta[1] - difference) < 1e-8
