"""Sampling continuations: prompts are read once, their samples decode in one loop that stops when all have ended.

Shapes: N prompts, M samples of each, T new tokens, V vocabulary, P prompt slots.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.llama import Llama, decode
from mass_jax.sampling.choose import Settings, choose


class Samples(NamedTuple):
    """Continuations.

    Attributes:
      tokens_NMT: new tokens, int32; after the end, the pad token.
      logprobs_NMT: log-probability of each, see `choose`; 0 after the end.
      lengths_NM: tokens until the end, a stop token included.
      finished_NM: whether a stop ended it, and not the limit on new tokens.
    """

    tokens_NMT: jax.Array
    logprobs_NMT: jax.Array
    lengths_NM: jax.Array
    finished_NM: jax.Array


class DecodeState(NamedTuple):
    """Decoding in progress: what has been drawn, and all that the next token needs.

    Attributes:
      samples: drawn so far.
      drawn: tokens drawn of each row, the same for all.
      caches: keys and values of each layer; slots up to `drawn - 1` are filled.
      lengths_N: prompt lengths.
      keys_N: random keys.
    """

    samples: Samples
    drawn: jax.Array
    caches: list[decode.LayerCache]
    lengths_N: jax.Array
    keys_N: jax.Array


class Request(NamedTuple):
    """What stays the same while sampling: static choices."""

    num_samples: int
    max_new_tokens: int
    settings: Settings
    stop_tokens: tuple[int, ...]
    pad_token: int


def sample(
    model: Llama,
    params: Any,
    prompts_NP: jax.Array,
    lengths_N: jax.Array,
    keys_N: jax.Array,
    *,
    num_samples: int,
    max_new_tokens: int,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    stop_tokens: tuple[int, ...] = (),
    adapters: Any = None,
) -> Samples:
    """Draws `num_samples` continuations of each prompt.

    A sample depends on its own prompt, adapter and key only: the key of sample m at step t is
    fold_in(fold_in(keys_N[n], m), t). What shares the batch changes no more than rounding. Wrap it in `jax.jit` with
    the settings bound (`functools.partial`), or call it inside another jitted function.

    Args:
      model: the model.
      params: parameters; those of `decode.unstack` spare each call a copy of the blocks.
      prompts_NP: right-padded prompts.
      lengths_N: real tokens of each, at least 1.
      keys_N: one random key per prompt.
      num_samples: M.
      max_new_tokens: T.
      settings: how tokens are drawn.
      stop_tokens: a sample ends with the first of these, which is counted and kept.
      adapters: None, one "lora" tree for all [L, ...], or one for each prompt [N, L, ...].

    Returns:
      The samples.
    """
    pad = model.config.pad_token_id
    request = Request(num_samples, max_new_tokens, settings, tuple(stop_tokens), 0 if pad is None else pad)
    params = decode.unstack(params)
    state = start(model, params, prompts_NP, lengths_N, keys_N, request, adapters)
    return advance(model, params, state, request, adapters, max_new_tokens).samples


def start(
    model: Llama,
    params: Any,
    prompts_NP: jax.Array,
    lengths_N: jax.Array,
    keys_N: jax.Array,
    request: Request,
    adapters: Any,
) -> DecodeState:
    """Reads the prompts and draws the first token of each sample."""
    rows, length = prompts_NP.shape[0], request.max_new_tokens
    layers = decode.unstack_adapter(adapters, model.config.num_hidden_layers)
    logits_NV, caches = decode.prefill(model, params, layers, prompts_NP, lengths_N, request.num_samples, length)
    shape = (rows, request.num_samples)
    empty = Samples(
        jnp.full((*shape, length), request.pad_token, jnp.int32),
        jnp.zeros((*shape, length), logits_NV.dtype),
        jnp.zeros(shape, jnp.int32),
        jnp.zeros(shape, bool),
    )
    logits_NMV = jnp.broadcast_to(logits_NV[:, None], (*shape, logits_NV.shape[-1]))
    samples = _append(empty, logits_NMV, keys_N, jnp.zeros((), jnp.int32), request)
    return DecodeState(samples, jnp.ones((), jnp.int32), caches, lengths_N, keys_N)


def advance(
    model: Llama, params: Any, state: DecodeState, request: Request, adapters: Any, until: int | jax.Array
) -> DecodeState:
    """Decodes until `until` tokens of each sample are drawn or all have ended."""
    layers = decode.unstack_adapter(adapters, model.config.num_hidden_layers)

    def goes_on(state: DecodeState) -> jax.Array:
        return (state.drawn < until) & ~jnp.all(state.samples.finished_NM)

    def body(state: DecodeState) -> DecodeState:
        last = state.drawn - 1
        tokens_NM = jax.lax.dynamic_index_in_dim(state.samples.tokens_NMT, last, axis=2, keepdims=False)
        logits_NMV, caches = decode.step(model, params, layers, state.caches, tokens_NM, state.lengths_N, last)
        samples = _append(state.samples, logits_NMV, state.keys_N, state.drawn, request)
        return state._replace(samples=samples, drawn=state.drawn + 1, caches=caches)

    return jax.lax.while_loop(goes_on, body, state)


def _append(samples: Samples, logits_NMV: jax.Array, keys_N: jax.Array, t: jax.Array, request: Request) -> Samples:
    """Draws token t of each sample that has not ended."""

    def one(key: jax.Array, m: jax.Array, logits_V: jax.Array) -> tuple[jax.Array, jax.Array]:
        return choose(jax.random.fold_in(jax.random.fold_in(key, m), t), logits_V, request.settings)

    per_prompt = jax.vmap(one, in_axes=(None, 0, 0))
    tokens_NM, logprobs_NM = jax.vmap(per_prompt, in_axes=(0, None, 0))(
        keys_N, jnp.arange(request.num_samples), logits_NMV
    )
    ended_NM = samples.finished_NM
    tokens_NM = jnp.where(ended_NM, request.pad_token, tokens_NM)
    stops_NM = jnp.isin(tokens_NM, jnp.asarray(request.stop_tokens, jnp.int32)) if request.stop_tokens else False
    return Samples(
        jax.lax.dynamic_update_index_in_dim(samples.tokens_NMT, tokens_NM, t, axis=2),
        jax.lax.dynamic_update_index_in_dim(samples.logprobs_NMT, jnp.where(ended_NM, 0, logprobs_NM), t, axis=2),
        samples.lengths_NM + (~ended_NM).astype(jnp.int32),
        ended_NM | stops_NM,
    )
