"""Fixtures: a small Llama, its parameters and adapters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama import LlamaConfig, lora
from tests.small_models import LLAMA, llama_params


@pytest.fixture
def config():
    return LLAMA


@pytest.fixture
def tokens_BT():
    return jnp.asarray(np.random.default_rng(1).integers(0, LLAMA.vocab_size, (3, 13)), jnp.int32)


@pytest.fixture
def make_params():
    """Returns a function that draws all parameters of a configuration."""
    return llama_params


@pytest.fixture
def make_adapter():
    """Returns a function that draws an adapter with nonzero B, in NumPy to avoid compilation."""

    def make(config: LlamaConfig, rank: int = 2, seed: int = 3, **kwargs):
        shapes = jax.eval_shape(lambda: lora.init(jax.random.key(seed), config, rank, **kwargs))
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype), shapes)

    return make


@pytest.fixture
def assert_close():
    """Returns a check that trees are equal up to a tolerance, relative to the largest element of each leaf."""

    def check(actual, expected, tolerance: float):
        def leaf(x, y):
            x, y = np.asarray(x), np.asarray(y)
            assert x.shape == y.shape
            assert np.max(np.abs(x - y)) < tolerance * max(np.max(np.abs(y)), 1e-30)

        jax.tree.map(leaf, actual, expected)

    return check
