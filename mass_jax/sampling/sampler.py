"""Protocol of samplers called from the host: they take prompts of any length and return tokens and texts.

Shape suffixes: N prompts, M samples per prompt, T tokens per sample, L blocks.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import jax
import numpy as np

from mass_jax.sampling.choose import Settings
from mass_jax.types import Adapter, Params


class Continuation(NamedTuple):
    """One sampled continuation.

    Attributes:
        tokens_T: generated tokens, int32, including the stop token or the token that completed a stop string.
        logprobs_T: their log-probabilities, see `choose`.
        text: the decoded tokens, without special tokens; it ends before the stop string.
        finish: "stop", or "length" if the sample hit `max_new_tokens`.
    """

    tokens_T: np.ndarray
    logprobs_T: np.ndarray
    text: str
    finish: Literal["stop", "length"]


class Sampler(Protocol):
    """Protocol for sampling continuations of prompts, implemented by `Engine` or a wrapper of an external engine.

    An implementation must ensure that a sample depends only on its own prompt, adapter and key, and that its
    log-probabilities are those of the tempered, untruncated policy. An engine that holds its own copy of the weights
    must reload `params` when they change, and derive its integer random seeds from the keys.
    """

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
        adapters: Adapter | None = None,
    ) -> list[list[Continuation]]:
        """Draws `num_samples` continuations of each prompt.

        Args:
            params: the model's parameters.
            prompts: token ids of each prompt, at least one.
            keys_N: one random key per prompt.
            num_samples: M.
            max_new_tokens: largest number of tokens per sample.
            settings: sampling settings.
            stop_tokens: a sample ends with the first of these.
            stop_strings: a sample ends with the token that completes the first of these in its text.
            adapters: None, a shared adapter for all prompts, or a batched one with an adapter per prompt.

        Returns:
            N lists of M samples.
        """
