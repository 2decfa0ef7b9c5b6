"""Incremental decoding with cached keys and values; the continuations of a prompt share its cache.

In steps, layers are unrolled, each with its own parameters: a scan over layers would copy each layer's weights at every
token, which takes five times as long as reading them. Kernels are stored [out, in], as in Hugging Face files, so that
products can take the weights as the left operand: for a dozen tokens at a time, this takes two thirds of the time on
CPU.

Shape suffixes: N prompts, M continuations per prompt, B = N M rows, P prompt slots, S continuation slots, K key-value
heads, G queries per key-value head, H features per head, D hidden size, V vocabulary, L layers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.llama import attention, joint_layers, lora
from mass_jax.llama.dense import LORA, ROWS
from mass_jax.llama.model import Block, Llama
from mass_jax.llama.precision import wide
from mass_jax.types import Adapter, Params, PyTree


class LayerCache(NamedTuple):
    """Keys and values of one layer.

    Continuations have a single axis of rows B, because reshaping a cache before a product would copy it at every token.

    Attributes:
        prompt_key: keys of the prompts [N, K, P, H], shared by their continuations.
        prompt_value: values of the prompts [N, K, P, H].
        key: keys of the continuations [B, K, S, H].
        value: values of the continuations [B, K, S, H].
    """

    prompt_key: jax.Array
    prompt_value: jax.Array
    key: jax.Array
    value: jax.Array


def unstack(params: Params) -> Params:
    """Converts parameters to the layout for decoding: "layers" as a tuple with one tree per layer, kernels [out, in].

    This copies the blocks, and an untied head. Call it once before a loop of `sample` calls with the same parameters;
    otherwise, each call unstacks them. Parameters that are already unstacked are returned unchanged.
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
    """Transposes the kernels of a parameter tree."""
    if not isinstance(tree, dict):
        return tree
    kernels = {ROWS: tree["kernel"].T} if "kernel" in tree else {}
    return kernels | {name: _rows(child) for name, child in tree.items() if name != "kernel"}


def unstack_adapter(adapter: Adapter | None, layers: int) -> list[dict[str, Any]]:
    """Splits an adapter by layer.

    Args:
        adapter: None, a shared adapter for all prompts, or a batched one with an adapter per prompt.
        layers: L.

    Returns:
        For each layer, the "lora" collection to pass to its block; empty without an adapter.
    """
    stacked = _stacked_adapter(adapter)
    return [_layer(stacked, i) for i in range(layers)]


def _stacked_adapter(adapter: Adapter | None) -> dict[str, Any]:
    """Returns the "lora" collections of all layers along a leading axis L; empty without an adapter."""
    if adapter is None:
        return {}
    whole = lora.folded(lora.checked(adapter))
    layers: PyTree = whole.leaves["layers"]
    return {LORA: jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), layers) if whole.batched else layers}


def prefill(
    model: Llama,
    params: Params,
    adapters: list[Any],
    prompts_NP: jax.Array,
    lengths_N: jax.Array,
    samples: int,
    slots: int,
) -> tuple[jax.Array, list[LayerCache]]:
    """Encodes right-padded prompts and fills their caches.

    Args:
        model: the model.
        params: parameters, from `unstack`.
        adapters: adapters by layer, from `unstack_adapter`.
        prompts_NP: prompt tokens.
        lengths_N: number of real tokens in each row, at least 1.
        samples: M.
        slots: S.

    Returns:
        Logits [N, V] after each prompt's last token, and a cache per layer with S empty slots.
    """
    x_NPD: Any = model.apply({"params": params}, prompts_NP, method="embed")
    kept = []
    for layer, adapter, rope in zip(params["layers"], adapters, model.config.rope_layers, strict=True):
        x_NPD, keys_and_values = _encode(model, {"params": layer, **adapter}, x_NPD, slots, rope)
        kept.append(keys_and_values)
    return _last_logits(model, params, x_NPD, lengths_N), _caches(kept, samples, slots)


def scanned_prefill(
    model: Llama,
    params: Params,
    adapter: Adapter | None,
    prompts_NP: jax.Array,
    lengths_N: jax.Array,
    samples: int,
    slots: int,
) -> tuple[jax.Array, list[LayerCache]]:
    """Does the same as `prefill` with stacked parameters, in a scan over layers, which compiles a single one.

    Args:
        model: the model.
        params: parameters as in training.
        adapter: None, a shared adapter for all prompts, or a batched one with an adapter per prompt.
        prompts_NP, lengths_N, samples, slots: see `prefill`.

    Returns:
        Logits [N, V] after each prompt's last token, and a cache per layer with S empty slots.
    """
    count, ropes = model.config.num_hidden_layers, model.config.rope_layers

    def body(x_NPD: jax.Array, layer: Any) -> Any:
        tree, adapter, rope = layer
        one, adapters = {"layers": (_rows(tree),)}, [adapter]
        if joint_layers.suits(model, one, adapters):
            one, adapters = joint_layers.join(one, adapters)
        variables = {"params": one["layers"][0], **adapters[0]}
        return _encode(model, variables, x_NPD, slots, True if all(ropes) else rope)

    x_NPD: Any = model.apply({"params": params}, prompts_NP, method="embed")
    x_NPD, stacked = jax.lax.scan(body, x_NPD, (params["layers"], _stacked_adapter(adapter), jnp.array(ropes)))
    kept = [_layer(stacked, i) for i in range(count)]
    return _last_logits(model, params, x_NPD, lengths_N), _caches(kept, samples, slots)


def _encode(model: Llama, variables: Any, x_NPD: jax.Array, slots: int, rope: Any) -> tuple[jax.Array, Any]:
    """Applies a block to the prompts; returns its output, keys [N, K, P, H] and values."""
    config, length = model.config, x_NPD.shape[1]

    def attend(query, key, value):
        return attention.self_attend(config, query, key, value, None), (key, value)

    positions_NP = jnp.arange(length)[None]
    x: Any
    kept: Any
    x, kept = Block(config).apply(variables, x_NPD, positions_NP, attend, length + slots, rope)
    return x, tuple(jnp.swapaxes(part, 1, 2) for part in kept)


def _caches(kept: list[Any], samples: int, slots: int) -> list[LayerCache]:
    """Returns the caches of all layers from the prompts' keys and values."""
    n, k, _, h = kept[0][0].shape
    return [LayerCache(key, value, *[jnp.zeros((n * samples, k, slots, h), key.dtype)] * 2) for key, value in kept]


def _last_logits(model: Llama, params: Params, x_NPD: jax.Array, lengths_N: jax.Array) -> jax.Array:
    """Returns the logits [N, V] after each prompt's last token."""
    last_ND = jnp.take_along_axis(x_NPD, (lengths_N - 1)[:, None, None], axis=1)[:, 0]
    return logits(model, params, last_ND)


def step(
    model: Llama,
    params: Params,
    adapters: list[Any],
    caches: list[LayerCache],
    tokens_NM: jax.Array,
    lengths_N: jax.Array,
    i: jax.Array,
) -> tuple[jax.Array, list[LayerCache]]:
    """Encodes one more token of every continuation.

    Args:
        model: the model.
        params: parameters, from `unstack`.
        adapters: adapters by layer, from `unstack_adapter`.
        caches: from `prefill` or the previous step.
        tokens_NM: token i of each continuation, at position `lengths_N + i`.
        lengths_N: prompt lengths.
        i: index of the token, and of the cache slot that it fills.

    Returns:
        Logits [N, M, V] for token i + 1, and the updated caches.
    """
    config = model.config
    prompt_slots, slots = caches[0].prompt_key.shape[2], caches[0].key.shape[2]
    prompt_visible_NP = jnp.arange(prompt_slots, dtype=lengths_N.dtype) < lengths_N[:, None]
    slot_visible_S = jnp.arange(slots, dtype=i.dtype) <= i
    positions_NM = jnp.broadcast_to((lengths_N + i)[:, None], tokens_NM.shape)
    x_NMD: Any = model.apply({"params": params}, tokens_NM, method="embed")
    updated = []
    for layer, adapter, cache, rope in zip(params["layers"], adapters, caches, config.rope_layers, strict=True):

        def attend(query, key, value, cache=cache):
            cache = _write(cache, key, value, i)
            return _attend(cache, query, prompt_visible_NP, slot_visible_S), cache

        variables = {"params": layer, **adapter}
        kept: Any
        x_NMD, kept = Block(config).apply(variables, x_NMD, positions_NM, attend, prompt_slots + slots, rope)
        updated.append(kept)
    return logits(model, params, x_NMD), updated


def logits(model: Llama, params: Params, x: jax.Array) -> jax.Array:
    """Returns the logits [..., V] of the last block's output [..., D], at least float32."""
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
    """Attends to the shared keys of the prompt and the continuation's own keys, under one softmax."""
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
