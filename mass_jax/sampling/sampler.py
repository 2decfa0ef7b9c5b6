"""What any engine that samples looks like from the host: prompts of any lengths in, texts out.

Shapes: N prompts, M samples of each, T tokens of a sample, L blocks.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np

from mass_jax.sampling.choose import Settings


class Continuation(NamedTuple):
    """One sample.

    Attributes:
      tokens_T: all that were drawn, int32: up to and with the stop token, or the token that completed a stop string.
      logprobs_T: their log-probabilities, see `choose`.
      text: the tokens decoded, without special tokens; it ends before the stop string.
      finish: "stop", or "length" at the limit on new tokens.
    """

    tokens_T: np.ndarray
    logprobs_T: np.ndarray
    text: str
    finish: Literal["stop", "length"]


class Sampler(Protocol):
    """What continues prompts: `Engine`, or a wrapper around an external engine.

    Whoever implements it keeps two promises: a sample depends on its own prompt, adapter and key only, and its
    log-probabilities are those of the tempered, untruncated policy. An engine with weights of its own loads `params`
    when they have changed, and derives its integer seeds from the keys.
    """

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
        """Draws `num_samples` continuations of each prompt.

        Args:
          params: the model's parameters.
          prompts: tokens, at least one each.
          keys_N: one random key per prompt.
          num_samples: M.
          max_new_tokens: longest sample.
          settings: how tokens are drawn.
          stop_tokens: a sample ends with the first of these.
          stop_strings: a sample ends with the token that completes the first of these in its text.
          adapters: None, one "lora" tree for all [L, ...], or one for each prompt [N, L, ...].

        Returns:
          N lists of M samples.
        """
