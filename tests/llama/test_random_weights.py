"""Random parameters: structure, distribution, seed and placement."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mass_jax import runtime
from mass_jax.llama import Llama, LlamaConfig, random_weights

CONFIG = LlamaConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=False,
)


@pytest.fixture(scope="module")
def params():
    return random_weights.draw(CONFIG, jax.random.key(0))


def test_draw_has_structure_of_fresh_parameters(params):
    fresh = jax.eval_shape(Llama(CONFIG).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), fresh
    )


def test_draw_follows_fresh_distribution(params):
    up = params["layers"]["mlp"]["up_proj"]["kernel"]
    assert float(up.std()) == pytest.approx(CONFIG.initializer_range, rel=0.05)
    assert float(abs(up[0] - up[1]).min()) > 0
    assert float(params["lm_head"]["kernel"].std()) == pytest.approx(CONFIG.initializer_range, rel=0.05)
    assert set(params["norm"]["weight"].tolist()) == {1.0}


def test_draw_depends_on_seed_only(params):
    placed = runtime.shardings(runtime.make_mesh("fsdp:2", jax.devices()[:2]), params)
    again = random_weights.draw(CONFIG, jax.random.key(0), jnp.bfloat16, placed)
    same = jax.tree.map(lambda one, two: bool((one.astype(jnp.bfloat16) == two).all()), params, again)
    assert all(jax.tree.leaves(same))
    embedding = again["embed_tokens"]["embedding"]
    assert embedding.sharding == NamedSharding(embedding.sharding.mesh, PartitionSpec("tensor", "fsdp"))
    other = random_weights.draw(CONFIG, jax.random.key(1))
    assert not bool((other["embed_tokens"]["embedding"] == params["embed_tokens"]["embedding"]).all())
