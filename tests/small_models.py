"""Small models that all tests share, so that equal work compiles once per test process."""

import dataclasses
import functools
from typing import Any

from mass_jax.config import Config
from mass_jax.llama import LlamaConfig
from mass_jax.training.components import Components, assemble

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


def components(**changes: Any) -> Components:
    """Returns components of the embedded model for `RUN` with changes; equal settings give one object."""
    return _components(Config(**(RUN | changes)))


@functools.cache
def _components(config: Config) -> Components:
    return assemble(config)
