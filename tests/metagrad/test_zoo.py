"""Tests of every adjoint against a differentiated Python loop, on a random sample of inner loops."""

import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.metagrad import transformations

K, M = 3, 4
OPTIMIZERS = {
    "momentum": lambda _: optax.sgd(0.2, momentum=0.9, nesterov=True),
    "adamw": lambda _: optax.adamw(0.05, eps_root=1e-6),
    "clip and adam": lambda _: optax.chain(optax.clip_by_global_norm(0.2), optax.adam(0.05, eps_root=1e-6)),
    "radam": lambda _: optax.radam(0.1, eps_root=1e-6),
    "MultiSteps": lambda _: optax.MultiSteps(optax.sgd(0.3), 2),
    "rate of meta": lambda meta: optax.chain(
        optax.trace(0.5), optax.inject_hyperparams(optax.sgd)(learning_rate=0.1 * jnp.exp(jax.tree.leaves(meta)[0][0]))
    ),
}
LOSSES = ("weights", "weights in chunks", "function to weights", "general")


def configurations(count: int) -> list[tuple[str, str, bool, bool]]:
    """Samples losses x optimizers x batch per step x auxiliary output, with every loss and optimizer."""
    draw = random.Random(7)
    whole = [
        (loss, optimizer, per_step, has_aux)
        for loss in LOSSES
        for optimizer in OPTIMIZERS
        for per_step in (False, True)
        for has_aux in (False, True)
    ]
    while True:
        drawn = draw.sample(whole, count)
        if {d[0] for d in drawn} == set(LOSSES) and {d[1] for d in drawn} == set(OPTIMIZERS):
            return drawn


def example_losses(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((jnp.tanh(batch["x"] @ params["a"] @ params["b"]) - batch["y"]) ** 2, axis=1)


def inner_loss(name: str) -> Any:
    if name == "general":

        def general(params: Any, meta: Any, batch: Any) -> jax.Array:
            shifted = {"x": batch["x"] * meta["gain"], "y": batch["y"]}
            return jnp.sum(jnp.sin(example_losses(params, shifted) * meta["slope"]))

        return general
    if name == "function to weights":
        return mg.WeightedLoss(
            example_losses, weights=lambda meta, batch: jax.nn.sigmoid(batch["x"] @ meta["gain"] * meta["slope"])
        )
    return mg.WeightedLoss(example_losses, chunk=2 if "chunks" in name else None)


def data(seed: int, leading: tuple[int, ...]) -> Any:
    x_key, y_key = jax.random.split(jax.random.key(seed))
    return {"x": jax.random.normal(x_key, (*leading, 3)), "y": jax.random.normal(y_key, (*leading, 2))}


def plain_loop(loss, build, outer, params, meta, batch, per_step, constant_steps=0, first_order=False):
    """Computes the outer loss after K steps in a Python loop."""
    stop = jax.lax.stop_gradient
    state = None
    for step in range(K):
        now = stop(meta) if step < constant_steps else meta
        optimizer = transformations.as_transformation(build(now))
        state = optimizer.init(params) if state is None else state
        one = jax.tree.map(lambda leaf, i=step: leaf[i], batch) if per_step else batch
        grads = jax.grad(loss)(stop(params) if first_order else params, now, one)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        if step + 1 == constant_steps:
            params, state = stop((params, state))
    return outer(params)


@pytest.mark.parametrize("configuration", configurations(9), ids=str)
def test_adjoints_equal_python_loop(configuration, x64, fast):
    loss_name, optimizer, per_step, has_aux = configuration
    loss = inner_loss(loss_name)
    weighted = isinstance(loss, mg.WeightedLoss)
    params = {"a": 0.7 * jax.random.normal(jax.random.key(1), (3, 2)), "b": jnp.array([[0.5, -1.0], [0.3, 0.8]])}
    named = {"gain": jnp.array([0.4, 1.1, -0.7]), "slope": jnp.array(0.8)}
    meta = jnp.array([0.5, 1.0, 0.2, 0.9]) if loss_name.startswith("weights") else named
    batch, outer_batch = data(2, (K, M) if per_step else (M,)), data(3, (M,))

    def outer(params, batch):
        return jnp.mean(example_losses(params, batch) ** 2)

    adjoints = {
        "exact": [
            *(mg.ReverseUnroll(r) for r in ("none", "recursive")),
            *map(mg.MixedMode, ("save_grads", "recursive")),
        ],
        "truncated 1": [mg.Truncated(1)],
        "truncated 2": [mg.Truncated(2)],
        "first order": [mg.FirstOrder()],
    }
    adjoints["exact"] += [mg.Truncated(K + 1), *map(mg.WeightedMixedMode, ("step", "recursive") if weighted else ())]
    settings = {"truncated 1": {"constant_steps": 2}, "truncated 2": {"constant_steps": 1}}
    settings |= {"exact": {}, "first order": {"first_order": True}}

    @fast
    def everything(meta, params):
        return {
            name: [
                mg.meta_gradient(
                    loss, (lambda p, b: (outer(p, b), p["a"])) if has_aux else outer, params, meta, batch, outer_batch,
                    optimizer=build if optimizer == "rate of meta" else build(meta), num_steps=K, adjoint=adjoint,
                    batch_per_step=per_step, has_aux=has_aux, wrt_params=name == "exact",
                )
                for adjoint in group
            ]
            for name, group in adjoints.items()
        }  # fmt: skip

    def reference(meta, params, **biased):
        def function(meta, params):
            return plain_loop(loss, build, lambda q: outer(q, outer_batch), params, meta, batch, per_step, **biased)

        if optimizer == "radam":  # reverse mode is NaN in optax's radam from step 3 on; forward mode is not
            return function(meta, params), jax.jacfwd(function, argnums=(0, 1))(meta, params)
        return jax.value_and_grad(function, argnums=(0, 1))(meta, params)

    build = OPTIMIZERS[optimizer]
    found = everything(meta, params)
    expected = fast(lambda meta, params: {n: reference(meta, params, **biased) for n, biased in settings.items()})(
        meta, params
    )
    # MultiSteps accumulates in float32.
    tolerance = 1e-6 if optimizer == "MultiSteps" else 1e-9
    for name, group in found.items():
        value, (meta_bar, params_bar) = expected[name]
        for each in group:
            np.testing.assert_allclose(each.value, value, rtol=tolerance)
            close(each.meta, meta_bar, tolerance)
            if name == "exact":
                close(each.params, params_bar, tolerance)
            if has_aux:
                np.testing.assert_array_equal(each.aux.outer, each.aux.params["a"])
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected["exact"][1][0])) > 1e-6


def close(left, right, tolerance):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1e-3, float(jnp.max(jnp.abs(b)))))
