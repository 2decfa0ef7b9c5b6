"""Token arrays of prompts with completions, padded to a fixed length on the host.

Shape suffixes: B rows, T tokens per row, N problems, M samples per problem.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mass_jax.aliases import Tokenizer
from mass_jax.errors import UserError
from mass_jax.llama.tokenizer import encode_all


class Text(NamedTuple):
    """Right-padded rows of prompt and completion.

    Attributes:
        tokens_BT: token ids, int32.
        mask_BT: True on real tokens, False on padding.
        target_BT: 1 on the tokens of the completion, which losses count, float32; a masked row has only zeros.
    """

    tokens_BT: Any
    mask_BT: Any
    target_BT: Any


class Rollout(NamedTuple):
    """Sampled completions with their prompts and log-probabilities, as a policy gradient requires.

    Attributes:
        text: rows of prompt and sampled completion.
        logprobs_BT: log-probability of each generated token at sampling time, at the position of the token, float32.
        log_ratio_BT: log of the model's over the sampler's probability of each generated token, float32; None if the
            model itself sampled.
    """

    text: Text
    logprobs_BT: Any
    log_ratio_BT: Any = None


class TooLong(UserError):
    """Raised when a text does not fit the configured length."""


def encode_prompts(
    tokenizer: Tokenizer, prompts: Sequence[str], length: int, flag: str = "max_prompt_tokens"
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes prompts as right-padded ids.

    Args:
        tokenizer: from `llama.tokenizer.load`; see `llama.tokenizer.encode` for special tokens.
        prompts: the texts.
        length: tokens per row.
        flag: name of the flag that set `length`, for the error message.

    Returns:
        tokens_BT (int32), lengths_B (int32).

    Raises:
        TooLong: a prompt has more than `length` tokens; prompts are never truncated.
        UserError: a prompt has no tokens.
    """
    rows = encode_all(tokenizer, prompts)
    for prompt, row in zip(prompts, rows, strict=True):
        if not row:
            raise UserError(
                f"prompt {prompt[:60]!r} has no tokens: add text to it, or use a tokenizer that adds a bos token"
            )
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
    tokenizer: Tokenizer,
    pairs: Sequence[tuple[str, str] | None],
    length: int,
    end_token: int | None = None,
    max_targets: int | None = None,
) -> tuple[Text, int]:
    """Encodes (prompt, completion) pairs as training rows, each with exactly one end token.

    Args:
        tokenizer: from `llama.tokenizer.load`.
        pairs: the pairs; None becomes a masked row.
        length: tokens per row; a longer pair becomes a masked row.
        end_token: token that ends a completion; None uses the tokenizer's eos token.
        max_targets: tokens per completion, end token included; a longer one becomes a masked row.

    Returns:
        The rows, and the number of pairs that were too long.

    Raises:
        UserError: neither `end_token` nor the tokenizer provides an end token.
    """
    tokens_BT = np.full((len(pairs), length), pad_id(tokenizer), np.int32)
    mask_BT = np.zeros((len(pairs), length), bool)
    target_BT = np.zeros((len(pairs), length), np.float32)
    too_long = 0
    present = [(i, pair) for i, pair in enumerate(pairs) if pair is not None]
    prompts = encode_all(tokenizer, [prompt for _, (prompt, _) in present])
    completions = encode_completions(tokenizer, [completion for _, (_, completion) in present], end_token)
    for (i, _), prompt, completion in zip(present, prompts, completions, strict=True):
        row = prompt + completion
        if len(row) > length or (max_targets is not None and len(completion) > max_targets):
            too_long += 1
            continue
        tokens_BT[i, : len(row)] = row
        mask_BT[i, : len(row)] = True
        target_BT[i, len(prompt) : len(row)] = 1
    return Text(tokens_BT, mask_BT, target_BT), too_long


def encode_completion(tokenizer: Tokenizer, text: str, end_token: int | None = None) -> list[int]:
    """Returns the token ids of a completion, with exactly one end token.

    Args:
        tokenizer: from `llama.tokenizer.load`.
        text: the completion; end tokens at its end are not repeated.
        end_token: token that ends a completion; None uses the tokenizer's eos token.

    Raises:
        UserError: neither `end_token` nor the tokenizer provides an end token.
    """
    return encode_completions(tokenizer, [text], end_token)[0]


def encode_completions(tokenizer: Tokenizer, texts: Sequence[str], end_token: int | None = None) -> list[list[int]]:
    """Encodes completions as `encode_completion` does, in one call of the tokenizer."""
    if not texts:
        return []
    eos = tokenizer.eos_token_id
    end_token = eos if end_token is None else end_token
    if end_token is None:
        raise UserError("the tokenizer has no eos token: set 'eos_token' in tokenizer_config.json, or pass end_token")
    rows = [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    for ids in rows:
        while ids and ids[-1] in (end_token, eos):
            del ids[-1]
        ids.append(end_token)
    return rows


def join_rollout(
    prompts_NT: np.ndarray,
    lengths_N: np.ndarray,
    samples_NMT: np.ndarray,
    logprobs_NMT: np.ndarray,
    counts_NM: np.ndarray,
) -> Rollout:
    """Appends sampled completions to their prompts, without a gap.

    Args:
        prompts_NT: right-padded prompt tokens.
        lengths_N: prompt lengths.
        samples_NMT: generated tokens.
        logprobs_NMT: log-probability of each generated token.
        counts_NM: number of generated tokens of each sample, stop token included.

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
    """Returns True for each row whose completion reached its token limit without a stop token."""
    stops_BT = np.isin(np.asarray(rollout.text.tokens_BT), list(stop_tokens))
    return ~np.any(stops_BT & (np.asarray(rollout.text.target_BT) > 0), axis=-1)


def pad_id(tokenizer: Tokenizer) -> int:
    """Returns the id that pads rows: the tokenizer's pad token, otherwise its eos token, otherwise 0."""
    return next(token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None)
