"""This package's sampler: requests of any size from the host, few compiled programs.

Shapes: N prompts, M samples of each, P prompt slots, T tokens of a sample.
"""

import bisect
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.llama import Llama, decode
from mass_jax.sampling.choose import Settings
from mass_jax.sampling.sample import DecodeState, Request, advance, start
from mass_jax.sampling.sampler import Continuation

_LEAST = 16  # tokens of the smallest bucket


@dataclasses.dataclass(frozen=True)
class Engine:
    """The `Sampler` of this package.

    Prompt lengths, the number of prompts and the limit on new tokens are rounded up to powers of two, so that a
    program is compiled once for all requests within such a bucket (and for each M and `settings`). `sample` draws the
    same tokens from arrays, inside of jitted code, without rounding up.

    Attributes:
      model: the model.
      tokenizer: decodes tokens, as `tokenizer.load` gives it.
      check_every: tokens between two looks for stop strings; what is drawn past one is dropped.
    """

    model: Llama
    tokenizer: Any
    check_every: int = 16

    def __call__(
        self,
        params: Any,
        prompts: Sequence[Sequence[int]],
        keys_N: jax.Array,
        *,
        num_samples: int,
        max_new_tokens: int,
        settings: Settings = Settings(),  # noqa: B008 (frozen)
        stop_tokens: tuple[int, ...] = (),
        stop_strings: tuple[str, ...] = (),
        adapters: Any = None,
    ) -> list[list[Continuation]]:
        """See `Sampler`. Parameters of `decode.unstack` spare each call a copy of the blocks."""
        self._check_prompts(prompts)
        _check(prompts, keys_N, num_samples, max_new_tokens, stop_strings, adapters)
        request = Request(num_samples, bucket(max_new_tokens, _LEAST), settings, tuple(stop_tokens), 0)
        prompts_NP, lengths_N, keys_N, adapters = _pad(prompts, keys_N, adapters)
        self._check_rope(prompts_NP.shape[1] + request.max_new_tokens)
        params = decode.unstack(params)
        state = _start(self.model, params, prompts_NP, lengths_N, keys_N, request, adapters)
        state = _finish(state, np.arange(len(lengths_N))[:, None] >= len(prompts))  # rows that fill the bucket
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
                    raise ValueError(f"prompt {n} has token {token}: the vocabulary ends at {vocabulary - 1}")

    def _check_rope(self, positions: int) -> None:
        config = self.model.config
        if config.rope.rope_type == "dynamic" and positions > config.max_position_embeddings:
            raise ValueError(
                f"dynamic RoPE turns by the length of the batch past {config.max_position_embeddings} positions, and "
                f"this request is rounded up to {positions}: shorten it, or use `sample`"
            )

    def _stopped_NM(self, state: DecodeState, stop_strings: tuple[str, ...]) -> np.ndarray:
        """Which running samples have met a stop string, as far as their newest tokens tell."""
        tokens_NMT, ends_NM = np.asarray(state.samples.tokens_NMT), np.asarray(state.samples.lengths_NM)
        # A token is a byte at least, so a string that has ended since the last look began among these.
        window = self.check_every + max(len(string.encode()) for string in stop_strings)
        stopped_NM = np.array(state.samples.finished_NM)
        for n, m in np.argwhere(~stopped_NM):
            end = ends_NM[n, m]
            text = self._decode(tokens_NMT[n, m, max(0, end - window) : end])
            stopped_NM[n, m] = any(string in text for string in stop_strings)
        return stopped_NM

    def _continuation(self, samples: Any, row: tuple[int, int], stop_strings: tuple[str, ...]) -> Continuation:
        """A sample of `Samples`, on the host, cut where it ended."""
        tokens_T, logprobs_T = samples.tokens_NMT[row], samples.logprobs_NMT[row]

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
    """The power of two to which a size is rounded up.

    >>> bucket(12), bucket(3, least=16)
    (16, 16)
    """
    return max(least, 1 << (count - 1).bit_length())


def _check(
    prompts: Any, keys_N: Any, num_samples: int, max_new_tokens: int, stop_strings: Sequence[str], adapters: Any
) -> None:
    if not len(prompts) or len(prompts) != len(keys_N):
        raise ValueError(f"there are {len(prompts)} prompts and {len(keys_N)} keys: give one key per prompt")
    if decode.per_prompt(adapters):
        count = len(jax.tree.leaves(adapters)[0])
        if count != len(prompts):
            raise ValueError(
                f"there are {len(prompts)} prompts and {count} adapters: give one for each, or one for all"
            )
    for name, value in (("num_samples", num_samples), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 1")
    if "" in stop_strings:
        raise ValueError("a stop string is empty: leave it out")


def _pad(
    prompts: Sequence[Sequence[int]], keys_N: jax.Array, adapters: Any
) -> tuple[np.ndarray, np.ndarray, jax.Array, Any]:
    """Prompts as one array, and all that comes by prompt, filled up to a bucket."""
    rows = bucket(len(prompts))
    prompts_NP = np.zeros((rows, bucket(max(map(len, prompts)), _LEAST)), np.int32)
    lengths_N = np.ones(rows, np.int32)
    for n, prompt in enumerate(prompts):
        prompts_NP[n, : len(prompt)], lengths_N[n] = prompt, len(prompt)
    if rows > len(prompts):
        keys_N = _repeat(keys_N, rows)
        adapters = _repeat(adapters, rows) if decode.per_prompt(adapters) else adapters
    return prompts_NP, lengths_N, keys_N, adapters


def _finish(state: DecodeState, finished_NM: np.ndarray) -> DecodeState:
    """Ends samples, beside those that have ended."""
    samples = state.samples
    return state._replace(samples=samples._replace(finished_NM=np.asarray(samples.finished_NM) | finished_NM))


@functools.partial(jax.jit, static_argnames="rows")
def _repeat(tree: Any, rows: int) -> Any:
    """Leading axes filled up with copies from the start."""
    return jax.tree.map(lambda leaf: leaf[jnp.arange(rows) % leaf.shape[0]], tree)


_start = jax.jit(start, static_argnames=("model", "request"))
_advance = jax.jit(advance, static_argnames=("model", "request"), donate_argnames="state")
