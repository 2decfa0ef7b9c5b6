"""Tests of evolution strategies: error on a quadratic, independence of noise, and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.errors import UserError

D = 4


def gradient(meta, adjoint, **settings):
    """The adapted parameters are linear in the weights, so the outer loss is a quadratic function of them."""
    batch = jnp.asarray(np.sin(np.arange(D * 3.0)).reshape(D, 3))
    return mg.meta_gradient(
        lambda params, meta, rows: meta["weights"] @ (rows @ params),
        lambda params, target: jnp.sum((params - target) ** 2),
        jnp.zeros(3),
        meta,
        batch,
        jnp.ones(3),
        optimizer=optax.sgd(0.5),
        num_steps=2,
        adjoint=adjoint,
        **settings,
    )


@pytest.fixture
def meta(x64):
    return {"weights": jnp.linspace(0.2, 0.8, D), "ids": jnp.arange(D)}


def test_estimate_converges_on_quadratic(meta):
    """The expected squared error is (d + 1) / n of the squared norm; twice that is allowed."""

    @jax.jit
    def errors():
        exact = gradient(meta, mg.MixedMode())
        few, many = (gradient(meta, mg.EvolutionStrategies(n, sigma=0.5, key=3)) for n in (100, 10_000))
        norm = jnp.linalg.norm(exact.meta["weights"])
        wrong = [jnp.linalg.norm(e.meta["weights"] - exact.meta["weights"]) / norm for e in (few, many)]
        return wrong, exact, many

    (few, many), exact, found = errors()
    assert few**2 < 2 * (D + 1) / 100
    assert many**2 < 2 * (D + 1) / 10_000
    assert few > 2 * many
    np.testing.assert_allclose([found.value, *found.aux.losses_K], [exact.value, *exact.aux.losses_K], rtol=1e-12)
    assert found.meta["ids"].tolist() == [0] * D


def test_noise_depends_on_key_only(meta):
    build = mg.EvolutionStrategies(pairs=2, key=7)

    @jax.jit
    def estimate(key):
        return gradient(meta, dataclasses.replace(build, key=key)).meta["weights"]

    same, other = estimate(jax.random.key(7)), estimate(jax.random.key(8))
    np.testing.assert_array_equal(same, jax.jit(lambda: gradient(meta, build).meta["weights"])())
    assert not np.allclose(same, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": 0}, r"EvolutionStrategies\(pairs=0\) needs an integer of at least 1"),
        ({"pairs": 2.0}, "pairs=2.0"),
        ({"sigma": 0.0}, r"sigma=0.0\) needs a positive"),
        ({"sigma": float("inf")}, "sigma=inf"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        mg.EvolutionStrategies(**settings)


def test_initial_parameters_are_refused(meta):
    with pytest.raises(UserError, match="does not perturb the initial parameters; use MixedMode"):
        gradient(meta, mg.EvolutionStrategies(), wrt_params=True)
