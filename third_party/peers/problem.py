"""Problem of all meta-gradient peers: weighted LoRA adaptation of a Llama, differentiated in the example weights.

Shape suffixes: M examples, B outer rows, T tokens.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mass_jax.llama import Llama, LlamaConfig, lora, losses
from mass_jax.types import Adapter


@dataclasses.dataclass(frozen=True)
class Size:
    """Shapes of one benchmark; a `rank` of 0 adapts all parameters, an `architecture` has further settings."""

    layers: int
    width: int
    ff: int
    heads: int
    kv_heads: int
    vocab: int
    rank: int
    examples: int
    tokens: int
    outer_rows: int
    tied: bool = False
    architecture: LlamaConfig | None = None

    def config(self, remat: str = "none", loss_chunk: int = 0) -> LlamaConfig:
        """Returns the Llama configuration of this size, with execution settings."""
        if self.architecture is not None:
            return dataclasses.replace(
                self.architecture, num_hidden_layers=self.layers, remat=remat, loss_chunk=loss_chunk
            )
        return LlamaConfig(
            vocab_size=self.vocab,
            hidden_size=self.width,
            intermediate_size=self.ff,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=max(self.tokens, 2048),
            tie_word_embeddings=self.tied,
            remat=remat,
            loss_chunk=loss_chunk,
        )


@dataclasses.dataclass(frozen=True)
class Data:
    """Arrays of one problem, as a pytree."""

    base: Any
    params: Any  # adapted by the inner loop
    weights_M: jax.Array
    tokens_MT: jax.Array
    outer_BT: jax.Array


jax.tree_util.register_dataclass(Data)


def draw(key: jax.Array, size: Size, dtype: Any = jnp.float32) -> Data:
    """Samples random weights and tokens; LoRA's B is zero, as at the start of any adaptation."""
    model_key, lora_key, weight_key, token_key, outer_key = jax.random.split(key, 5)
    model = Llama(size.config())
    base = model.init(model_key, jnp.zeros((1, 2), jnp.int32))["params"]
    base = jax.tree.map(lambda leaf: leaf.astype(dtype), base)
    params = lora.init(lora_key, size.config(), size.rank, dtype=dtype).leaves if size.rank else base
    return Data(
        base=base if size.rank else {},
        params=params,
        weights_M=jax.random.uniform(weight_key, (size.examples,), dtype) / size.examples,
        tokens_MT=jax.random.randint(token_key, (size.examples, size.tokens), 0, size.vocab),
        outer_BT=jax.random.randint(outer_key, (size.outer_rows, size.tokens), 0, size.vocab),
    )


def example_losses(size: Size, base: Any, remat: str = "none", loss_chunk: int = 0) -> Any:
    """Returns a function `(params, tokens_MT) -> losses_M`, the mean loss of each example in nats per token."""
    model = Llama(size.config(remat, loss_chunk))

    def losses_of(params: Any, tokens_MT: jax.Array) -> jax.Array:
        variables = lora.variables(base, Adapter(params)) if size.rank else lora.variables(params)
        return jnp.mean(losses.token_nll(model, variables, tokens_MT), axis=-1)

    return losses_of
