"""Splitting a model before its last blocks, so that the first ones run once if only the last carry adapters.

Shape suffixes: B rows, T tokens, D hidden size, L blocks of the model, n blocks of the suffix.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.llama import lora
from mass_jax.llama.model import Llama
from mass_jax.types import Adapter, Params


class Part(NamedTuple):
    """Consecutive blocks of a model.

    Attributes:
        model: a model with these blocks.
        params: its parameters.
        adapter: its part of an adapter, or None.
    """

    model: Llama
    params: Params
    adapter: Adapter | None = None


def split(model: Llama, params: Params, last: int, adapter: Adapter | None = None) -> tuple[Part, Part]:
    """Splits a model into a prefix and a suffix of `last` blocks.

    The prefix maps tokens to hidden states, see `prefix`. The suffix maps these to logits; it is a `Llama`, whose
    adapters (`lora.init` with the suffix's configuration) change no other block. An inner loop runs the prefix once,
    and each of its steps takes the time and the activation memory of the suffix only:

        hidden_BTD = prefix(first, tokens_BT, mask_BT)
        nll_BT = losses.token_nll(second.model, lora.variables(second.params, adapter), tokens_BT, mask_BT, hidden_BTD)

    Args:
        model: the model.
        params: its parameters. The blocks are copied, so call this outside the loop.
        last: n, at least 1 and less than L.
        adapter: a shared adapter of the whole model, frozen like the parameters; None if there is none.

    Returns:
        The prefix and the suffix.

    Raises:
        ValueError: `last` is out of range.

    >>> from mass_jax.llama import LlamaConfig
    >>> config = LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=3, num_attention_heads=1,
    ...                      intermediate_size=4)
    >>> params = jax.jit(Llama(config).init)(jax.random.key(0), jnp.array([[1]]))["params"]
    >>> [part.model.config.num_hidden_layers for part in split(Llama(config), params, last=1)]
    [2, 1]
    """
    count = model.config.num_hidden_layers
    if not 0 < last < count:
        raise ValueError(f"a suffix of {last} blocks does not fit a model of {count}: use 1 to {count - 1}")
    if adapter is not None:
        lora.checked(adapter, batched=False)

    def part(blocks: slice) -> Part:
        config = dataclasses.replace(
            model.config,
            num_hidden_layers=len(range(count)[blocks]),
            no_rope_layers=model.config.no_rope_layers[blocks],
            layer_types=model.config.layer_types[blocks],
        )
        layers = jax.tree.map(lambda leaf: leaf[blocks], params["layers"])
        return Part(Llama(config), {**params, "layers": layers}, jax.tree.map(lambda leaf: leaf[blocks], adapter))

    return part(slice(count - last)), part(slice(count - last, None))


def prefix(first: Part, tokens_BT: jax.Array, mask_BT: jax.Array | None = None) -> jax.Array:
    """Returns the output [B, T, D] of the first blocks, the suffix's input, with gradients stopped."""
    variables = lora.variables(first.params, first.adapter)
    embedded: Any = first.model.apply(variables, tokens_BT, method="embed")
    hidden_BTD: Any = first.model.apply(variables, embedded, mask_BT, method="blocks")
    return jax.lax.stop_gradient(hidden_BTD)


def widen(adapter: Adapter, blocks: int) -> Adapter:
    """Extends a suffix's adapter to the whole model, with zeros in the first blocks, for sampling, merging or export.

    Args:
        adapter: a shared or batched adapter of the last n blocks.
        blocks: L.

    Returns:
        The adapter of all L blocks.

    >>> jax.tree.map(jnp.shape, widen(Adapter({"a": jnp.ones((2, 4, 1))}), 3).leaves)
    {'a': (3, 4, 1)}
    """

    def pad(leaf: jax.Array) -> jax.Array:
        lead = [(0, 0)] * (leaf.ndim - 3)
        return jnp.pad(leaf, [*lead, (blocks - leaf.shape[-3], 0), (0, 0), (0, 0)])

    return jax.tree.map(pad, lora.checked(adapter))
