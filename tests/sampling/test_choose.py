"""Drawing of tokens: distribution, truncation and log-probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers.generation import logits_process as theirs

from mass_jax.sampling.choose import Settings, choose, draw, truncate


@pytest.mark.parametrize("size", [3, 256, 1000])
def test_draw_follows_weights(size):
    weights_V = jax.random.exponential(jax.random.key(0), (size,)).at[:2].set(0.0)
    count = 40_000
    tokens = jax.jit(jax.vmap(lambda key: draw(key, weights_V)))(jax.random.split(jax.random.key(1), count))
    found = np.bincount(np.asarray(tokens), minlength=size)
    wanted = np.asarray(weights_V / weights_V.sum()) * count
    # Pearson's statistic has mean `degrees` and variance `2 * degrees`; allow 5 standard deviations.
    degrees = size - 3
    positive = wanted > 0
    statistic = np.sum((found - wanted)[positive] ** 2 / wanted[positive])
    assert found[~positive].sum() == 0
    assert statistic < degrees + 5 * np.sqrt(2 * degrees + 1)


def test_draw_never_returns_zero_weight():
    weights_V = jnp.zeros(1000).at[jnp.array([3, 300])].set(jnp.array([1.0, 1e-30]))
    tokens = jax.jit(jax.vmap(lambda key: draw(key, weights_V)))(jax.random.split(jax.random.key(0), 1000))
    assert set(np.asarray(tokens).tolist()) <= {3, 300}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("settings", "warper"),
    [
        (Settings(top_k=5), theirs.TopKLogitsWarper(5)),
        (Settings(top_p=0.7), theirs.TopPLogitsWarper(0.7)),
        (Settings(min_p=0.1), theirs.MinPLogitsWarper(0.1)),
    ],
)
def test_truncate_matches_transformers(seed, settings, warper):
    import torch

    logits_V = 2 * np.random.default_rng(seed).standard_normal(97).astype(np.float32)
    kept = np.isfinite(warper(None, torch.tensor(logits_V)[None]).numpy()[0])
    found = np.asarray(truncate(jnp.exp(jnp.asarray(logits_V - logits_V.max())), settings)) > 0
    np.testing.assert_array_equal(found, kept)


def test_choose_returns_tempered_log_probability():
    logits_V = jnp.array([0.0, 1.0, 3.0, -2.0])
    settings = Settings(temperature=0.5, top_k=2)
    token, logprob = choose(jax.random.key(0), logits_V, settings)
    np.testing.assert_allclose(logprob, jax.nn.log_softmax(logits_V / 0.5)[token], rtol=1e-5)
    token, logprob = choose(jax.random.key(0), logits_V, Settings(temperature=0.0))
    assert int(token) == 2
    np.testing.assert_allclose(logprob, jax.nn.log_softmax(logits_V)[2], rtol=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"min_p": 1.0}]
)
def test_invalid_setting_is_named(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        Settings(**wrong)
