"""Type aliases for trees of arrays and tokenizers; imports no JAX.

They are `Any` to a static type checker, since pytrees have no closed type, and tell readers what is meant.
"""

from typing import Any, TypeAlias

PyTree: TypeAlias = Any
"""A pytree with arrays as leaves."""

Tokenizer: TypeAlias = Any
"""A `transformers.PreTrainedTokenizerFast`, from `mass_jax.llama.tokenizer.load`."""

Params: TypeAlias = Any
"""Parameters of a Flax model, as nested dictionaries."""
