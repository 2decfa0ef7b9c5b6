"""Sampling loop on arrays: prompts are encoded once, and their samples are decoded until all have ended.

Shape suffixes: N prompts, M samples per prompt, T new tokens, V vocabulary, P prompt slots.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.llama import Llama, decode, joint_layers
from mass_jax.llama.decode import unstack
from mass_jax.llama.target import gpus
from mass_jax.sampling.choose import Settings, choose
from mass_jax.types import Adapter, Params

_STEPS = 4  # on a GPU, between checks for the end: the host waits for each check, and the GPU then waits for the host


class Samples(NamedTuple):
    """Sampled continuations, as arrays.

    Attributes:
        tokens_NMT: new tokens, int32; the pad token after the end.
        logprobs_NMT: log-probability of each token, see `choose`; 0 after the end.
        lengths_NM: number of tokens, including a stop token.
        finished_NM: true where a stop token ended the sample, false where it hit `max_new_tokens`.
    """

    tokens_NMT: jax.Array
    logprobs_NMT: jax.Array
    lengths_NM: jax.Array
    finished_NM: jax.Array


class DecodeState(NamedTuple):
    """State of the sampling loop.

    Attributes:
        samples: samples so far.
        drawn: number of tokens drawn, the same for all samples.
        caches: keys and values of each layer; the first `drawn - 1` slots are filled.
        lengths_N: prompt lengths.
        keys_N: random keys.
    """

    samples: Samples
    drawn: jax.Array
    caches: list[decode.LayerCache]
    lengths_N: jax.Array
    keys_N: jax.Array


class Request(NamedTuple):
    """Static settings of a sampling loop.

    Attributes:
        num_samples: M.
        max_new_tokens: T.
        settings: sampling settings.
        stop_tokens: a sample ends with the first of these.
        pad_token: token after the end of a sample.
    """

    num_samples: int
    max_new_tokens: int
    settings: Settings
    stop_tokens: tuple[int, ...]
    pad_token: int


def sample(
    model: Llama,
    params: Params,
    prompts_NP: jax.Array,
    lengths_N: jax.Array,
    keys_N: jax.Array,
    *,
    num_samples: int,
    max_new_tokens: int,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    stop_tokens: tuple[int, ...] = (),
    adapters: Adapter | None = None,
) -> Samples:
    """Draws `num_samples` continuations of each prompt.

    A sample depends only on its own prompt, adapter and key: the key of sample m at step t is
    fold_in(fold_in(keys_N[n], m), t). The rest of the batch affects rounding only. Wrap this in `jax.jit` with the
    static arguments bound by `functools.partial`, or call it inside another jitted function.

    Args:
        model: the model.
        params: parameters; those from `unstack` save a copy of the blocks in each call.
        prompts_NP: right-padded prompts.
        lengths_N: number of real tokens in each prompt, at least 1.
        keys_N: one random key per prompt.
        num_samples: M.
        max_new_tokens: T.
        settings: sampling settings.
        stop_tokens: a sample ends with the first of these, which is counted and kept.
        adapters: None, a shared adapter for all prompts, or a batched one with an adapter per prompt.

    Returns:
        The samples.

    >>> import functools
    >>> from mass_jax.llama import LlamaConfig
    >>> model = Llama(LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
    ...                           intermediate_size=4))
    >>> prompts_NP, lengths_N = jnp.array([[1, 2], [3, 0]]), jnp.array([2, 1])
    >>> params = jax.jit(model.init)(jax.random.key(0), prompts_NP)["params"]
    >>> keys_N = jax.random.split(jax.random.key(1), 2)
    >>> draw = jax.jit(functools.partial(sample, model, num_samples=3, max_new_tokens=5))
    >>> draw(params, prompts_NP, lengths_N, keys_N).tokens_NMT.shape
    (2, 3, 5)
    """
    pad = model.config.pad_token_id
    request = Request(num_samples, max_new_tokens, settings, tuple(stop_tokens), 0 if pad is None else pad)
    unstacked = unstack(params)
    state = start(model, params if gpus() == 1 else unstacked, prompts_NP, lengths_N, keys_N, request, adapters)
    return advance(model, unstacked, state, request, adapters, max_new_tokens).samples


def start(
    model: Llama,
    params: Params,
    prompts_NP: jax.Array,
    lengths_N: jax.Array,
    keys_N: jax.Array,
    request: Request,
    adapters: Adapter | None,
) -> DecodeState:
    """Encodes the prompts and draws the first token of each sample.

    With stacked parameters, this compiles a scan over layers; with those of `unstack`, each layer.
    """
    rows, length = prompts_NP.shape[0], request.max_new_tokens
    size = (request.num_samples, length)
    if isinstance(params["layers"], tuple):
        params, layers = _prepared(model, params, adapters)
        logits_NV, caches = decode.prefill(model, params, layers, prompts_NP, lengths_N, *size)
    else:
        logits_NV, caches = decode.scanned_prefill(model, params, adapters, prompts_NP, lengths_N, *size)
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
    model: Llama,
    params: Params,
    state: DecodeState,
    request: Request,
    adapters: Adapter | None,
    until: int | jax.Array,
) -> DecodeState:
    """Continues sampling until `until` tokens per sample are drawn, or all samples have ended."""
    params, layers = _prepared(model, params, adapters)

    def running(state: DecodeState) -> jax.Array:
        return (state.drawn < until) & ~jnp.all(state.samples.finished_NM)

    def body(state: DecodeState) -> DecodeState:
        last = state.drawn - 1
        tokens_NM = jax.lax.dynamic_index_in_dim(state.samples.tokens_NMT, last, axis=2, keepdims=False)
        logits_NMV, caches = decode.step(model, params, layers, state.caches, tokens_NM, state.lengths_N, last)
        samples = _append(state.samples, logits_NMV, state.keys_N, state.drawn, request)
        return state._replace(samples=samples, drawn=state.drawn + 1, caches=caches)

    def bounded(_: int, state: DecodeState) -> DecodeState:
        """Draws no token after the last; the keys and values that it writes then are those of the next step."""
        after, wanted = body(state), state.drawn < until
        samples = jax.tree.map(lambda new, old: jnp.where(wanted, new, old), after.samples, state.samples)
        return after._replace(samples=samples, drawn=state.drawn + wanted.astype(jnp.int32))

    def several(state: DecodeState) -> DecodeState:
        return jax.lax.fori_loop(0, _STEPS, bounded, state)

    return jax.lax.while_loop(running, several if gpus() else body, state)


def _prepared(model: Llama, params: Params, adapters: Adapter | None) -> tuple[Params, list[Any]]:
    """Returns unstacked parameters and adapters by layer, joined where the device reads them faster so."""
    layers = decode.unstack_adapter(adapters, model.config.num_hidden_layers)
    return joint_layers.join(params, layers) if joint_layers.suits(model, params, layers) else (params, layers)


def _append(samples: Samples, logits_NMV: jax.Array, keys_N: jax.Array, t: jax.Array, request: Request) -> Samples:
    """Draws token t of every sample that has not ended."""

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
