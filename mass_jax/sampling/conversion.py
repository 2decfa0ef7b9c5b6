"""Conversion of a sampler's continuations to the arrays of `sample`, with checks of the protocol.

Shape suffixes: N prompts, M samples per prompt, T tokens per sample.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mass_jax.errors import UserError
from mass_jax.sampling.loop import Request, Samples
from mass_jax.sampling.sampler import Continuation


def to_samples(
    rows: Sequence[Sequence[Continuation]], prompts: int, request: Request, vocabulary: int, name: str
) -> Samples:
    """Converts continuations to padded arrays.

    Args:
        rows: N lists of M continuations, from a `Sampler`.
        prompts: N.
        request: what was asked for.
        vocabulary: number of token ids.
        name: name of the sampler, for error messages.

    Returns:
        The samples as NumPy arrays, in the form that `sample` returns.

    Raises:
        UserError: the continuations contradict the protocol or the request; one line that names the first.
    """
    shape = (prompts, request.num_samples, request.max_new_tokens)
    wrong = next((len(row) for row in rows if len(row) != shape[1]), shape[1])
    if (len(rows), wrong) != shape[:2]:
        raise UserError(
            f"--sampler={name} returned {len(rows)} lists, one of them of {wrong} samples: return {shape[1]} for each "
            f"of {prompts} prompts"
        )
    tokens_NMT: Any = np.full(shape, request.pad_token, np.int32)
    logprobs_NMT: Any = np.zeros(shape, np.float32)
    lengths_NM: Any = np.zeros(shape[:2], np.int32)
    finished_NM: Any = np.zeros(shape[:2], bool)
    for n, m in np.ndindex(*shape[:2]):
        one = rows[n][m]
        tokens_T, logprobs_T = np.asarray(one.tokens_T), np.asarray(one.logprobs_T)
        fault = _fault(tokens_T, logprobs_T, one.finish, request, vocabulary)
        if fault:
            raise UserError(f"--sampler={name} broke its protocol in sample {m} of prompt {n}: {fault}")
        count = len(tokens_T)
        tokens_NMT[n, m, :count], logprobs_NMT[n, m, :count] = tokens_T, logprobs_T
        lengths_NM[n, m], finished_NM[n, m] = count, one.finish == "stop"
    return Samples(tokens_NMT, logprobs_NMT, lengths_NM, finished_NM)


def _fault(tokens_T: np.ndarray, logprobs_T: np.ndarray, finish: str, request: Request, vocabulary: int) -> str:
    """Returns how a continuation contradicts the protocol, with the fix; "" if it does not."""
    count, limit = len(tokens_T), request.max_new_tokens
    if tokens_T.ndim != 1 or not np.issubdtype(tokens_T.dtype, np.integer) or not 1 <= count <= limit:
        return f"tokens_T is {tokens_T.dtype}{list(tokens_T.shape)}; return 1 to {limit} integers"
    if tokens_T.min() < 0 or tokens_T.max() >= vocabulary:
        wrong = tokens_T.min() if tokens_T.min() < 0 else tokens_T.max()
        return f"a token is {wrong}; return ids from 0 to {vocabulary - 1}"
    if logprobs_T.shape != tokens_T.shape:
        return f"there are {count} tokens and logprobs_T{list(logprobs_T.shape)}; return one log-probability per token"
    if not np.all(np.isfinite(logprobs_T)):
        return "a log-probability is not finite; return those of the untruncated policy"
    if finish not in ("stop", "length"):
        return f"finish is {finish!r}; return 'stop' or 'length'"
    stops_T = np.isin(tokens_T, request.stop_tokens)
    if stops_T[:-1].any():
        return f"tokens follow stop token {tokens_T[np.argmax(stops_T)]}; end the sample with it"
    if stops_T[-1] != (finish == "stop"):
        return f"finish is {finish!r}, but the last token is {tokens_T[-1]}; keep the stop token"
    return ""
