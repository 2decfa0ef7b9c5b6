"""One text read once, many continuations of it decoded a token at a time with cached keys and values.

Layers are unrolled here, each with parameters of its own: a scan over layers copies a layer's weights at each token,
which takes five times as long as reading them. Kernels are kept as Hugging Face has them, [out, in], for products that
put the weights first: with a dozen tokens at a time, those take two thirds of the time on CPU.
Shapes: N prompts, M continuations of each, B = N M rows, P prompt slots, S continuation slots, K key-value heads, G
queries per key-value head, H head features, D hidden size, V vocabulary, L layers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.llama import attention
from mass_jax.llama.model import LORA, ROWS, Block, Llama
from mass_jax.llama.precision import wide


class LayerCache(NamedTuple):
    """Keys and values of one layer: the prompts' [N, K, P, H], shared by continuations, and theirs [B, K, S, H].

    The rows of continuations are one axis: reshaped on the way to a product, a cache would be copied at each token.
    """

    prompt_key: jax.Array
    prompt_value: jax.Array
    key: jax.Array
    value: jax.Array


def unstack(params: Any) -> Any:
    """Parameters with "layers" as a tuple of each layer's own, kernels as [out, in]: what decoding reads.

    It copies the blocks, and an untied head, once. Call it before a loop of many `sample` calls with the same
    parameters; parameters that come stacked are unstacked by each call.
    """
    layers = params["layers"]
    if isinstance(layers, tuple):
        return params
    count = jax.tree.leaves(layers)[0].shape[0]
    head = {name: _rows(params[name]) for name in params if name == "lm_head"}
    return {**params, **head, "layers": tuple(_rows(_layer(layers, i)) for i in range(count))}


def _layer(layers: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], layers)


def _rows(tree: Any) -> Any:
    """Parameters with their kernels transposed."""
    if not isinstance(tree, dict):
        return tree
    kernels = {ROWS: tree["kernel"].T} if "kernel" in tree else {}
    return kernels | {name: _rows(child) for name, child in tree.items() if name != "kernel"}


def unstack_adapter(adapter: Any, layers: int) -> list[Any]:
    """Each layer's part of an adapter [L, ...], or of one adapter per prompt [N, L, ...]."""
    if adapter is None:
        return [{}] * layers
    each = per_prompt(adapter)

    def part(i: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[:, i] if each else leaf[i], adapter["layers"])

    return [{LORA: part(i)} for i in range(layers)]


def per_prompt(adapter: Any) -> bool:
    """Whether a tree holds one adapter per prompt [N, L, ...], and not one for all [L, ...] or none."""
    return adapter is not None and jax.tree.leaves(adapter)[0].ndim == 4


def prefill(
    model: Llama,
    params: Any,
    adapters: list[Any],
    prompts_NP: jax.Array,
    lengths_N: jax.Array,
    samples: int,
    slots: int,
) -> tuple[jax.Array, list[LayerCache]]:
    """Reads right-padded prompts.

    Args:
      model: the model.
      params: unstacked parameters.
      adapters: unstacked adapters.
      prompts_NP: tokens.
      lengths_N: how many of each row are real, at least 1.
      samples: M.
      slots: S.

    Returns:
      Logits [N, V] after each prompt's last token, and the caches with S empty slots.
    """
    config, length = model.config, prompts_NP.shape[1]
    positions_NP = jnp.arange(length)[None]
    x_NPD: Any = model.apply({"params": params}, prompts_NP, method="embed")

    def attend(query, key, value):
        return attention.self_attend(config, query, key, value, None), (key, value)

    caches = []
    for layer, adapter in zip(params["layers"], adapters, strict=True):
        variables = {"params": layer, **adapter}
        kept: Any
        x_NPD, kept = Block(config).apply(variables, x_NPD, positions_NP, attend, length + slots)
        key_NKPH, value_NKPH = (jnp.swapaxes(x, 1, 2) for x in kept)
        empty = jnp.zeros((len(prompts_NP) * samples, config.num_key_value_heads, slots, config.head_dim), x_NPD.dtype)
        caches.append(LayerCache(key_NKPH, value_NKPH, empty, empty))
    last_ND = jnp.take_along_axis(x_NPD, (lengths_N - 1)[:, None, None], axis=1)[:, 0]
    return logits(model, params, last_ND), caches


def step(
    model: Llama,
    params: Any,
    adapters: list[Any],
    caches: list[LayerCache],
    tokens_NM: jax.Array,
    lengths_N: jax.Array,
    i: jax.Array,
) -> tuple[jax.Array, list[LayerCache]]:
    """Reads continuation token i of every row into slot i, at position lengths + i; returns logits [N, M, V]."""
    config = model.config
    prompt_slots, slots = caches[0].prompt_key.shape[2], caches[0].key.shape[2]
    prompt_visible_NP = jnp.arange(prompt_slots, dtype=lengths_N.dtype) < lengths_N[:, None]
    slot_visible_S = jnp.arange(slots, dtype=i.dtype) <= i
    positions_NM = jnp.broadcast_to((lengths_N + i)[:, None], tokens_NM.shape)
    x_NMD: Any = model.apply({"params": params}, tokens_NM, method="embed")
    updated = []
    for layer, adapter, cache in zip(params["layers"], adapters, caches, strict=True):

        def attend(query, key, value, cache=cache):
            cache = _write(cache, key, value, i)
            return _attend(cache, query, prompt_visible_NP, slot_visible_S), cache

        variables = {"params": layer, **adapter}
        kept: Any
        x_NMD, kept = Block(config).apply(variables, x_NMD, positions_NM, attend, prompt_slots + slots)
        updated.append(kept)
    return logits(model, params, x_NMD), updated


def logits(model: Llama, params: Any, x: jax.Array) -> jax.Array:
    """Logits of the last block's output, at least float32."""
    normed: Any = model.apply({"params": params}, x, method="final_norm")
    scores: Any = model.apply({"params": params}, normed, method="head")
    return scores.astype(wide(scores.dtype))


def _write(cache: LayerCache, key_NMKH: jax.Array, value_NMKH: jax.Array, i: jax.Array) -> LayerCache:
    def put(slots_BKSH: jax.Array, new_NMKH: jax.Array) -> jax.Array:
        new_BKSH = new_NMKH.reshape(-1, *new_NMKH.shape[2:])[:, :, None]
        return jax.lax.dynamic_update_slice_in_dim(slots_BKSH, new_BKSH, i, axis=2)

    return cache._replace(key=put(cache.key, key_NMKH), value=put(cache.value, value_NMKH))


def _attend(
    cache: LayerCache, query_NMKGH: jax.Array, prompt_visible_NP: jax.Array, slot_visible_S: jax.Array
) -> jax.Array:
    """One softmax over the shared prompt's keys and the row's own."""
    shape, dtype = query_NMKGH.shape, wide(query_NMKGH.dtype)
    hidden = attention.hidden_score(dtype)
    query = query_NMKGH * shape[-1] ** -0.5
    prompt = jnp.einsum("NMKGH,NKPH->NMKGP", query, cache.prompt_key, preferred_element_type=dtype)
    own = jnp.einsum("BKGH,BKSH->BKGS", query.reshape(-1, *shape[2:]), cache.key, preferred_element_type=dtype)
    prompt = jnp.where(prompt_visible_NP[:, None, None, None], prompt, hidden)
    own = jnp.where(slot_visible_S, own, hidden).reshape(*shape[:-1], -1)
    weights = jax.nn.softmax(jnp.concatenate([prompt, own], axis=-1), axis=-1).astype(query.dtype)
    prompt, own = jnp.split(weights, [prompt.shape[-1]], axis=-1)
    mixed = jnp.einsum("NMKGP,NKPH->NMKGH", prompt, cache.prompt_value)
    own = jnp.einsum("BKGS,BKSH->BKGH", own.reshape(-1, *own.shape[2:]), cache.value)
    return mixed + own.reshape(shape)
