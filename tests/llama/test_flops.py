"""Formula for floating-point operations."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mass_jax.llama import Llama
from mass_jax.llama.flops import Tokens, flops, matmul_weights
from tests.small_models import LLAMA

CONFIG = dataclasses.replace(LLAMA, num_hidden_layers=3, tie_word_embeddings=False)


def test_matmul_weights_count_model_kernels():
    params = jax.eval_shape(Llama(CONFIG).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    kernels = [leaf.size for path, leaf in jax.tree.leaves_with_path(params) if "kernel" in jax.tree_util.keystr(path)]
    assert matmul_weights(CONFIG) == sum(kernels)
    assert matmul_weights(CONFIG, 3) == matmul_weights(CONFIG)


def test_flops_of_generation_is_two_per_weight():
    assert flops(CONFIG, Tokens(read=5, written=2, trained=0), inner_steps=2) == 14 * matmul_weights(CONFIG)


@pytest.mark.parametrize("blocks", [1, 2])
def test_flops_decrease_with_fewer_adapted_blocks(blocks):
    tokens = Tokens(read=0, written=0, trained=10)
    whole = flops(CONFIG, tokens, inner_steps=2)
    assert whole == flops(CONFIG, tokens, inner_steps=2, lora_blocks=3) == 40 * matmul_weights(CONFIG)
    assert 20 * matmul_weights(CONFIG, blocks) < flops(CONFIG, tokens, inner_steps=2, lora_blocks=blocks) < whole
