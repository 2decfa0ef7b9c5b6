"""Compiling for a GPU that is not attached, where JAX's CUDA plugin is installed."""

import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama import Llama, lora
from mass_jax.planning import chips
from mass_jax.runtime import make_mesh, use_mesh
from mass_jax.sampling.loop import sample
from mass_jax.types import Adapter
from tests.small_models import LLAMA

TASKS = 3


def _has_plugin() -> bool:
    return importlib.util.find_spec("jax_plugins") is not None and any(
        importlib.util.find_spec(f"jax_plugins.xla_cuda{version}") for version in (12, 13)
    )


@pytest.fixture
def flags(monkeypatch, no_compilation_cache):
    """Keeps the flags that compiling for a GPU adds out of other tests; its programs cannot be read from a cache."""
    monkeypatch.setenv("XLA_FLAGS", "")


def test_unknown_gpus_are_refused(flags):
    with pytest.raises(ValueError, match="'h100:0' is unknown; write h100 with a number, like h100:1"):
        chips.devices_of("h100:0")
    with pytest.raises(ValueError, match="--num_slices=2 is for TPUs; leave it out with --topology=h100:1"):
        chips.devices_of("h100:1", 2)


@pytest.mark.skipif(_has_plugin(), reason="JAX's CUDA plugin is installed")
def test_missing_plugin_is_named(flags):
    with pytest.raises(RuntimeError, match=r'installed \(`pip install "mass_jax\[plan-cuda\]"`\)'):
        chips.devices_of("h100:1")


@pytest.mark.skipif(not _has_plugin(), reason="JAX's CUDA plugin is not installed")
def test_decoding_on_a_gpu_takes_one_product_for_all_tasks(flags):
    """Compiled for an H100: no product has an axis of tasks, except those of attention."""
    mesh = make_mesh("data:1", chips.devices_of("h100:1"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def abstract(tree, dtype=None):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=everywhere), tree)

    model, prompts_NP = Llama(LLAMA), jnp.zeros((TASKS, 4), jnp.int32)
    params = abstract(jax.eval_shape(model.init, jax.random.key(0), prompts_NP)["params"], jnp.bfloat16)
    leaves = jax.eval_shape(jax.vmap(lambda key: lora.init(key, LLAMA, 4).leaves), _keys())
    adapters = abstract(Adapter(leaves, batched=True))
    batch = (prompts_NP, np.full(TASKS, 4, np.int32), jax.eval_shape(_keys))
    draw = jax.jit(functools.partial(sample, model, num_samples=2, max_new_tokens=4))
    with use_mesh(mesh), jax.numpy_dtype_promotion("standard"):
        text = draw.lower(params, *map(abstract, batch), adapters=adapters).compile().as_text()
    products = re.findall(r"= \(?\w+\[([\d,]+)\]\S* .*(?:custom-call|fusion|dot)\(.*(?:matmul|dot)", text)
    assert len(products) > 2 * LLAMA.num_hidden_layers * len(lora.TARGETS)
    assert not [shape for shape in products if shape.startswith(f"{TASKS},")]


def _keys() -> jax.Array:
    return jax.random.split(jax.random.key(0), TASKS)
