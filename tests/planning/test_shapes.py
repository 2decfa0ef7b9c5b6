"""Published architectures: their number of parameters, and the presets that name them."""

import jax
import jax.numpy as jnp
import pytest

from experiments.presets import llama32_1b, qwen3_06b, qwen25_05b
from mass_jax.llama import Llama, flops
from mass_jax.planning.phases import Iteration
from mass_jax.planning.shapes import shape_of
from mass_jax.runtime import make_mesh

# Numbers of parameters on the models' pages.
COUNTS = {qwen25_05b: 494_032_768, qwen3_06b: 596_049_920, llama32_1b: 1_235_814_400}


@pytest.mark.parametrize("preset", COUNTS)
def test_preset_names_published_model(preset):
    config = preset.config()
    shape = shape_of(config.model)
    params = jax.eval_shape(Llama(shape).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == COUNTS[preset]
    # Products with weights, which flops count, leave out norms and biases; the tied table is also the output head.
    weights = [leaf for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key in ("kernel", "embedding")]
    assert flops.matmul_weights(shape) == sum(leaf.size for leaf in weights)
    assert (config.task, shape.tie_word_embeddings) == ("math", True)
    state, base = Iteration(config, shape, make_mesh("data:1", jax.devices()[:1])).state()
    assert sum(leaf.size for leaf in jax.tree.leaves(base)) == COUNTS[preset]
    assert set(state.policy["layers"]) == {"mlp", "self_attn"}
