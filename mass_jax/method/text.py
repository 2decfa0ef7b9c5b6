"""Token arrays: prompts with completions, padded to one length, on the host.

Letters: B rows, T tokens of a row, N tasks, M samples of a task.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mass_jax.errors import UserError


class Text(NamedTuple):
    """Rows of prompt + completion, right-padded.

    Args:
        tokens_BT: int32 ids.
        mask_BT: True on real tokens.
        target_BT: float32, 1 on the tokens of the completion, which a loss is to count; a row of zeros is a masked row.
    """

    tokens_BT: Any
    mask_BT: Any
    target_BT: Any


class Rollout(NamedTuple):
    """Sampled completions in their context, with what a policy gradient needs.

    Args:
        text: prompt + sampled completion.
        logprobs_BT: float32, log-probability of each sampled token when it was sampled, at the token's own position.
    """

    text: Text
    logprobs_BT: Any


class TooLong(UserError):
    """A text does not fit the length that was set for it."""


def encode_prompts(
    tokenizer: Any, prompts: Sequence[str], length: int, flag: str = "max_prompt_tokens"
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as right-padded ids.

    Args:
        tokenizer: a transformers tokenizer; adds its own special tokens (a Llama tokenizer: bos).
        length: tokens a row.
        flag: the setting that `length` came from, for the error.

    Returns:
        tokens_BT (int32), lengths_B (int32).

    Raises:
        TooLong: if a prompt has more than `length` tokens; nothing is cut silently.
    """
    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        if len(row) > length:
            raise TooLong(
                f"prompt of {len(row)} tokens is longer than {flag}={length}: {prompt[:60]!r}; "
                f"raise --{flag} to {len(row)} or more"
            )
    tokens_BT = np.full((len(rows), length), pad_id(tokenizer), np.int32)
    for i, row in enumerate(rows):
        tokens_BT[i, : len(row)] = row
    return tokens_BT, np.array([len(row) for row in rows], np.int32)


def encode_pairs(
    tokenizer: Any, pairs: Sequence[tuple[str, str] | None], length: int, end_token: int | None = None
) -> tuple[Text, int]:
    """(prompt, completion) pairs as training rows, each completion ended by one token.

    Args:
        pairs: None stands for a masked row.
        length: tokens a row; a longer pair becomes a masked row and is counted.
        end_token: what ends a completion; None is the tokenizer's eos.

    Returns:
        The rows, and how many were too long.
    """
    tokens_BT = np.full((len(pairs), length), pad_id(tokenizer), np.int32)
    mask_BT = np.zeros((len(pairs), length), bool)
    target_BT = np.zeros((len(pairs), length), np.float32)
    end_token = tokenizer.eos_token_id if end_token is None else end_token
    too_long = 0
    for i, pair in enumerate(pairs):
        if pair is None:
            continue
        prompt = tokenizer(pair[0])["input_ids"]
        row = prompt + tokenizer(pair[1], add_special_tokens=False)["input_ids"] + [end_token]
        if len(row) > length:
            too_long += 1
            continue
        tokens_BT[i, : len(row)] = row
        mask_BT[i, : len(row)] = True
        target_BT[i, len(prompt) : len(row)] = 1
    return Text(tokens_BT, mask_BT, target_BT), too_long


def join_rollout(
    prompts_NT: np.ndarray,
    lengths_N: np.ndarray,
    samples_NMT: np.ndarray,
    logprobs_NMT: np.ndarray,
    counts_NM: np.ndarray,
) -> Rollout:
    """Puts sampled completions behind their prompts, without a gap.

    Args:
        prompts_NT: right-padded prompts; lengths_N their lengths.
        samples_NMT: sampled tokens; counts_NM how many of each are real (the stop token is one of them).
        logprobs_NMT: log-probability of each sampled token.

    Returns:
        Rows of shape [N, M, T_prompt + T_sample].
    """
    N, M, S = samples_NMT.shape
    tokens = np.zeros((N, M, prompts_NT.shape[1] + S), np.int32)
    target = np.zeros(tokens.shape, np.float32)
    logprobs = np.zeros(tokens.shape, np.float32)
    tokens[:, :, : prompts_NT.shape[1]] = prompts_NT[:, None]
    for n, start in enumerate(lengths_N):
        tokens[n, :, start : start + S] = samples_NMT[n]
        target[n, :, start : start + S] = np.arange(S) < counts_NM[n, :, None]
        logprobs[n, :, start : start + S] = logprobs_NMT[n]
    ends_NM = lengths_N[:, None] + counts_NM
    mask = np.arange(tokens.shape[2]) < ends_NM[:, :, None]
    return Rollout(Text(np.where(mask, tokens, 0), mask, target), logprobs * target)


def cut_off(rollout: Rollout, stop_tokens: Sequence[int]) -> np.ndarray:
    """Which completions the limit on new tokens ended, and no stop token: bool, one a row."""
    stops_BT = np.isin(np.asarray(rollout.text.tokens_BT), list(stop_tokens))
    return ~np.any(stops_BT & (np.asarray(rollout.text.target_BT) > 0), axis=-1)


def pad_id(tokenizer: Any) -> int:
    """The id that fills a row; its value never matters, since every use of a row is masked by length."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
