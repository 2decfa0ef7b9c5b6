"""Small models that all tests share, so that equal work compiles once per test process."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.config import Config
from mass_jax.llama import Llama, LlamaConfig
from mass_jax.training.components import Components, assemble
from mass_jax.types import Params

# Grouped-query attention in two blocks; weights are large enough for gradients that differ.
LLAMA = LlamaConfig(
    vocab_size=61,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.3,
)
# The smallest model whose axes eight devices divide evenly.
DIVISIBLE_LLAMA = dataclasses.replace(
    LLAMA, vocab_size=16, intermediate_size=16, num_attention_heads=8, num_key_value_heads=8, head_dim=2
)
# A run of the embedded model in which every row has two problems, examples and attempts.
RUN = {"steps": 3, "warmup_steps": 1, "tasks_per_step": 2, "num_examples": 2, "num_attempts": 2, "eval_batch": 2}
RUN |= {"num_test_examples": 2, "num_train_problems": 20, "num_eval_problems": 2}
# Changes for tests that do not depend on how rewards are computed; those of several files share these programs.
QUICK = {"steps": 2, "tasks_per_step": 4, "lora_targets": ("q_proj",), "adjoint": "first_order"}


def components(**changes: Any) -> Components:
    """Returns components of the embedded model for `RUN` with changes; equal settings give one object."""
    return _components(Config(**(RUN | changes)))


@functools.cache
def _components(config: Config) -> Components:
    return assemble(config)


def llama_params(config: LlamaConfig) -> Params:
    """Draws all parameters of a Llama, in NumPy to avoid compilation."""
    return jax.tree.map(jnp.asarray, _llama_params(config, jax.config.jax_enable_x64))


@functools.cache
def _llama_params(config: LlamaConfig, x64: bool) -> Params:
    """Draws parameters as NumPy arrays, whose dtypes depend on whether float64 is enabled."""
    del x64
    shapes = jax.eval_shape(Llama(config).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        center = 1.0 if path[-1].key == "weight" else 0.0
        return (center + config.initializer_range * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
