"""Sampler for requests of any size from the host, with few compiled programs.

Shape suffixes: N prompts, M samples per prompt, P prompt slots, T tokens per sample.
"""

import bisect
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.llama import Llama, decode, lora
from mass_jax.llama.target import gpus
from mass_jax.sampling.adapters import Adapters, batch
from mass_jax.sampling.choose import Settings
from mass_jax.sampling.loop import DecodeState, Request, Samples, advance, start
from mass_jax.sampling.sampler import Continuation
from mass_jax.types import Adapter, Params, PyTree

_LEAST = 16  # tokens in the smallest bucket


@dataclasses.dataclass(frozen=True)
class Engine:
    """`Sampler` for a `Llama`.

    Prompt lengths, the number of prompts and `max_new_tokens` are rounded up to powers of two, so that requests in the
    same bucket share a compiled program (one for each M and `settings`). `sample` draws the same tokens from arrays
    inside jitted code, without rounding.

    Attributes:
        model: the model.
        tokenizer: decodes tokens; from `tokenizer.load`.
        check_every: tokens between checks for stop strings; tokens drawn after a stop string are dropped.

    >>> import mass_jax.llama
    >>> model, params, tokenizer = mass_jax.llama.load("tiny")
    >>> prompts = [tokenizer("solve 4 kabo 3 =")["input_ids"]]
    >>> keys_N = jax.random.split(jax.random.key(0), 1)
    >>> samples = Engine(model, tokenizer)(params, prompts, keys_N, num_samples=2, max_new_tokens=4)
    >>> [[sample.finish for sample in row] for row in samples]
    [['length', 'length']]
    """

    model: Llama
    tokenizer: Any
    check_every: int = 16

    def __call__(
        self,
        params: Params,
        prompts: Sequence[Sequence[int]],
        keys_N: jax.Array,
        *,
        num_samples: int,
        max_new_tokens: int,
        settings: Settings = Settings(),  # noqa: B008 (frozen)
        stop_tokens: tuple[int, ...] = (),
        stop_strings: tuple[str, ...] = (),
        adapters: Adapters = None,
    ) -> list[list[Continuation]]:
        """Draws `num_samples` continuations of each prompt; see `Sampler`.

        Parameters from `unstack` save a copy of the blocks in each call.

        Args:
            params, prompts, keys_N, num_samples, max_new_tokens, settings, stop_tokens, stop_strings: see `Sampler`.
            adapters: as in `Sampler`, or a sequence with a shared adapter or None for each prompt; see
                `sampling.adapters.batch`.

        Raises:
            ValueError: a prompt is empty or out of the vocabulary, the numbers of prompts, keys and adapters differ, a
                count is below 1, a stop string is empty, or dynamic RoPE would depend on the batch.
        """
        self._check_prompts(prompts)
        if adapters is not None and not isinstance(adapters, Adapter):
            _check_count(prompts, len(adapters))
            adapters = batch(adapters)
        _check(prompts, keys_N, num_samples, max_new_tokens, stop_strings, adapters)
        request = Request(num_samples, bucket(max_new_tokens, _LEAST), settings, tuple(stop_tokens), 0)
        prompts_NP, lengths_N, keys_N, adapters = _pad(prompts, keys_N, adapters)
        self._check_rope(prompts_NP.shape[1] + request.max_new_tokens)
        given, params = params, decode.unstack(params)
        state = _start(self.model, given if gpus() == 1 else params, prompts_NP, lengths_N, keys_N, request, adapters)
        state = _finish(state, np.arange(len(lengths_N))[:, None] >= len(prompts))  # rows that pad the bucket
        every = self.check_every if stop_strings else max_new_tokens
        for until in (*range(every, max_new_tokens, every), max_new_tokens):
            state = _advance(self.model, params, state, request, adapters, np.int32(until))
            if stop_strings:
                state = _finish(state, self._stopped_NM(state, stop_strings))
            if np.all(state.samples.finished_NM):
                break
        samples = jax.tree.map(np.asarray, state.samples)
        rows = range(len(prompts))
        return [[self._continuation(samples, (n, m), stop_strings) for m in range(num_samples)] for n in rows]

    def _check_prompts(self, prompts: Sequence[Sequence[int]]) -> None:
        vocabulary = self.model.config.vocab_size
        for n, prompt in enumerate(prompts):
            if not len(prompt):
                raise ValueError(f"prompt {n} is empty: give at least one token, such as bos")
            for token in (min(prompt), max(prompt)):
                if not 0 <= token < vocabulary:
                    raise ValueError(f"prompt {n} has token {token}: use ids from 0 to {vocabulary - 1}")

    def _check_rope(self, positions: int) -> None:
        config = self.model.config
        if config.rope.rope_type == "dynamic" and positions > config.max_position_embeddings:
            raise ValueError(
                f"dynamic RoPE depends on the length of the batch past {config.max_position_embeddings} positions, and "
                f"this request is rounded up to {positions}: shorten it, or use `sample`"
            )

    def _stopped_NM(self, state: DecodeState, stop_strings: tuple[str, ...]) -> np.ndarray:
        """Returns which samples have ended or contain a stop string; only the newest tokens are searched."""
        tokens_NMT, ends_NM = np.asarray(state.samples.tokens_NMT), np.asarray(state.samples.lengths_NM)
        # A token is at least one byte, so a string that ended since the last check started within this window.
        window = self.check_every + max(len(string.encode()) for string in stop_strings)
        stopped_NM = np.array(state.samples.finished_NM)
        for n, m in np.argwhere(~stopped_NM):
            end = ends_NM[n, m]
            text = self._decode(tokens_NMT[n, m, max(0, end - window) : end])
            stopped_NM[n, m] = any(string in text for string in stop_strings)
        return stopped_NM

    def _continuation(self, samples: Samples, row: tuple[int, int], stop_strings: tuple[str, ...]) -> Continuation:
        """Returns the sample in row (n, m), truncated where it ended."""
        tokens_T, logprobs_T = np.asarray(samples.tokens_NMT)[row], np.asarray(samples.logprobs_NMT)[row]

        def met(count: int) -> bool:
            text = self._decode(tokens_T[:count])
            return any(string in text for string in stop_strings)

        count = int(samples.lengths_NM[row])
        cut = met(count)
        if cut:
            count = bisect.bisect_left(range(count), True, key=met)
        text = self._decode(tokens_T[:count])
        if cut:
            text = text[: min(text.find(string) for string in stop_strings if string in text)]
        return Continuation(
            tokens_T[:count], logprobs_T[:count], text, "stop" if cut or samples.finished_NM[row] else "length"
        )

    def _decode(self, tokens_T: np.ndarray) -> str:
        return self.tokenizer.decode(tokens_T.tolist(), skip_special_tokens=True)


def bucket(count: int, least: int = 1) -> int:
    """Rounds a size up to a power of two, at least `least`.

    >>> bucket(12), bucket(3, least=16)
    (16, 16)
    """
    return max(least, 1 << (count - 1).bit_length())


def _check(
    prompts: Any,
    keys_N: Any,
    num_samples: int,
    max_new_tokens: int,
    stop_strings: Sequence[str],
    adapters: Adapter | None,
) -> None:
    if not len(prompts) or len(prompts) != len(keys_N):
        raise ValueError(f"there are {len(prompts)} prompts and {len(keys_N)} keys: give one key per prompt")
    if adapters is not None and lora.checked(adapters).batched:
        _check_count(prompts, len(jax.tree.leaves(adapters)[0]))
    for name, value in (("num_samples", num_samples), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 1")
    if "" in stop_strings:
        raise ValueError("a stop string is empty: remove it")


def _check_count(prompts: Any, count: int) -> None:
    """Checks the number of adapters."""
    if count != len(prompts):
        raise ValueError(f"there are {len(prompts)} prompts and {count} adapters: give one per prompt, or one for all")


def _pad(
    prompts: Sequence[Sequence[int]], keys_N: jax.Array, adapters: Adapter | None
) -> tuple[np.ndarray, np.ndarray, jax.Array, Adapter | None]:
    """Pads prompts, keys and batched adapters to a bucket; returns prompts_NP, lengths_N, keys_N and adapters."""
    rows = bucket(len(prompts))
    prompts_NP = np.zeros((rows, bucket(max(map(len, prompts)), _LEAST)), np.int32)
    lengths_N = np.ones(rows, np.int32)
    for n, prompt in enumerate(prompts):
        prompts_NP[n, : len(prompt)], lengths_N[n] = prompt, len(prompt)
    if rows > len(prompts):
        keys_N = _repeat(keys_N, rows)
        if adapters is not None and adapters.batched:
            adapters = adapters.many(_repeat(adapters.leaves, rows))
    return prompts_NP, lengths_N, keys_N, adapters


def _finish(state: DecodeState, finished_NM: np.ndarray) -> DecodeState:
    """Marks further samples as finished."""
    samples = state.samples
    return state._replace(samples=samples._replace(finished_NM=np.asarray(samples.finished_NM) | finished_NM))


@functools.partial(jax.jit, static_argnames="rows")
def _repeat(tree: PyTree, rows: int) -> PyTree:
    """Extends leading axes to `rows` by repeating them from the start."""
    return jax.tree.map(lambda leaf: leaf[jnp.arange(rows) % leaf.shape[0]], tree)


_start = jax.jit(start, static_argnames=("model", "request"))
_advance = jax.jit(advance, static_argnames=("model", "request"), donate_argnames="state")
