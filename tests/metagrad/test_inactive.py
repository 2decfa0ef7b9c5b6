"""Tests of derivatives at a zero gradient: those of the active branch, equal to finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.metagrad.inactive import differentiate_active_branch


def scale_down(limit):
    """Clips by multiplying with limit / norm instead of dividing by the norm."""

    def update(grads, params):
        norm = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(grads)))
        return jax.tree.map(lambda leaf: jnp.where(norm < limit, leaf, leaf * (limit / norm)), grads)

    return optax.stateless(update)


CLIPS = {
    "clip_by_global_norm": lambda: optax.clip_by_global_norm(0.3),
    "clip_by_block_rms": lambda: optax.clip_by_block_rms(0.1),
    "adaptive_grad_clip": lambda: optax.adaptive_grad_clip(0.1),
    "own clip": lambda: scale_down(0.3),
    "in a condition": lambda: optax.MultiSteps(optax.clip_by_global_norm(0.3), 1),
}
OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1),
    "adamw": lambda: optax.adamw(1e-2, eps_root=1e-6),
}


def problem():
    keys = jax.random.split(jax.random.key(4), 3)
    params = {"w": jax.random.normal(keys[0], (5, 2)), "b": jnp.zeros(2)}
    batch = {"x": jax.random.normal(keys[1], (4, 5)), "y": jax.random.normal(keys[2], (4, 2))}

    def examples(params, batch):
        return jnp.sum((jnp.tanh(batch["x"] @ params["w"] + params["b"]) - batch["y"]) ** 2, 1)

    return params, batch, examples, lambda params, batch: jnp.mean(examples(params, batch) ** 2)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_meta_gradient_at_zero_weights_matches_differences(clip, optimizer, x64, fast):
    params, batch, examples, outer = problem()
    clipping = CLIPS[clip]()
    chain = optax.chain(getattr(clipping, "gradient_transformation", lambda: clipping)(), OPTIMIZERS[optimizer]())

    @fast
    def both(weights):
        def of(adjoint):
            return mg.meta_gradient(
                mg.WeightedLoss(examples), outer, params, weights, batch, batch,
                optimizer=chain, num_steps=2, adjoint=adjoint,
            )  # fmt: skip

        return of(mg.WeightedMixedMode()), of(mg.ReverseUnroll())

    weights = jnp.zeros(4)
    mixed, reverse = both(weights)
    steps = 1e-7 * np.eye(4)
    measured = [float(both(weights + step)[0].value - both(weights - step)[0].value) / 2e-7 for step in steps]
    np.testing.assert_allclose(mixed.meta, measured, rtol=1e-2)
    np.testing.assert_allclose(reverse.meta, mixed.meta, rtol=1e-10)


def test_meta_gradient_is_finite_for_rejected_problem(x64, fast):
    params, batch, examples, outer = problem()
    optimizer = optax.chain(optax.clip_by_global_norm(0.3), optax.sgd(0.1))

    def gradient(weights):
        return mg.meta_gradient(
            mg.WeightedLoss(examples), outer, params, weights, batch, batch,
            optimizer=optimizer, num_steps=2, adjoint=mg.WeightedMixedMode(),
        ).meta  # fmt: skip

    weights = jnp.stack([jnp.zeros(4), jnp.linspace(0.1, 1.0, 4)])
    together, one = fast(jax.vmap(gradient))(weights), fast(gradient)
    assert np.all(np.isfinite(together))
    for row, alone in zip(together, weights, strict=True):
        np.testing.assert_allclose(row, one(alone), rtol=1e-9)


def test_active_branch_keeps_derivative_of_clip(x64, fast):
    clip = optax.clip_by_global_norm(0.5)

    def of(wrap):
        update = wrap(lambda grads: clip.update(grads, optax.EmptyState())[0])
        return fast(jax.jacrev(update))({"a": jnp.array([0.6, -0.8]), "b": jnp.array(0.1)})

    ours, plain = of(differentiate_active_branch), of(lambda function: function)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), ours, plain)


def test_active_branch_skips_functions_without_norms():
    optimizer = optax.adamw(1e-2)
    params = {"w": jnp.ones(3)}
    state = optimizer.init(params)

    def update(grads):
        return optimizer.update(grads, state, params)[0]

    with jax.numpy_dtype_promotion("standard"):
        ours, plain = (jax.make_jaxpr(wrap(update))(params) for wrap in (differentiate_active_branch, lambda f: f))
    assert str(ours) == str(plain)
