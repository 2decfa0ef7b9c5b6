"""The last blocks of a model on their own: where only they carry adapters, the first ones run once.

Shapes: B rows, T tokens, D hidden size, L blocks of the model, n of them in the suffix.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.llama import lora
from mass_jax.llama.model import Llama


class Part(NamedTuple):
    """Some consecutive blocks of a model, with their parameters and their part of an adapter, if there is one."""

    model: Llama
    params: Any
    adapter: Any = None


def split(model: Llama, params: Any, last: int, adapter: Any = None) -> tuple[Part, Part]:
    """Cuts a model before its last blocks.

    The prefix reads tokens up to the cut, see `prefix`; the suffix reads on from there to the logits and is a `Llama`
    of its own, whose adapters (`lora.init` with the suffix's configuration) touch no other block. An inner loop then
    runs the prefix once, and each of its steps pays for the suffix only, in time and in saved activations:

        hidden_BTD = prefix(first, tokens_BT, mask_BT)
        nll_BT = losses.token_nll(second.model, lora.variables(second.params, adapter), tokens_BT, mask_BT, hidden_BTD)

    Args:
      model: the model.
      params: its parameters; the blocks are copied, so split them outside of the loop.
      last: n, blocks of the suffix; at least 1 and fewer than L.
      adapter: one of the whole model [L, ...], frozen like its parameters; None if there is none.

    Returns:
      The prefix and the suffix.

    >>> from mass_jax.llama import LlamaConfig
    >>> config = LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=3, num_attention_heads=1,
    ...                      intermediate_size=4)
    >>> params = jax.jit(Llama(config).init)(jax.random.key(0), jnp.array([[1]]))["params"]
    >>> [part.model.config.num_hidden_layers for part in split(Llama(config), params, last=1)]
    [2, 1]
    """
    count = model.config.num_hidden_layers
    if not 0 < last < count:
        raise ValueError(f"a suffix of {last} blocks was asked of a model of {count}: take 1 to {count - 1}")

    def part(blocks: slice) -> Part:
        config = dataclasses.replace(model.config, num_hidden_layers=len(range(count)[blocks]))
        layers = jax.tree.map(lambda leaf: leaf[blocks], params["layers"])
        return Part(Llama(config), {**params, "layers": layers}, jax.tree.map(lambda leaf: leaf[blocks], adapter))

    return part(slice(count - last)), part(slice(count - last, None))


def prefix(first: Part, tokens_BT: jax.Array, mask_BT: jax.Array | None = None) -> jax.Array:
    """What the suffix reads: the first blocks' output [B, T, D], a constant to every derivative."""
    variables = lora.variables(first.params, first.adapter)
    embedded: Any = first.model.apply(variables, tokens_BT, method="embed")
    hidden_BTD: Any = first.model.apply(variables, embedded, mask_BT, method="blocks")
    return jax.lax.stop_gradient(hidden_BTD)


def widen(adapter: Any, blocks: int) -> Any:
    """The suffix's adapter as one of the whole model: zero in the blocks before, to sample, merge or export with.

    Args:
      adapter: leaves [..., n, in, R] and [..., n, R, out]; leading axes, such as one of tasks, are kept.
      blocks: L.

    >>> jax.tree.map(jnp.shape, widen({"a": jnp.ones((2, 4, 1))}, 3))
    {'a': (3, 4, 1)}
    """

    def pad(leaf: jax.Array) -> jax.Array:
        lead = [(0, 0)] * (leaf.ndim - 3)
        return jnp.pad(leaf, [*lead, (blocks - leaf.shape[-3], 0), (0, 0), (0, 0)])

    return jax.tree.map(pad, adapter)
