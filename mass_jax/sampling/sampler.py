"""Protocol of samplers called from the host: they take prompts of any length and return tokens and texts.

Shape suffixes: N prompts, M samples per prompt, T tokens per sample, L blocks.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from mass_jax import own_code
from mass_jax.errors import UserError
from mass_jax.sampling.choose import Settings
from mass_jax.types import Adapter, Params

KEYWORDS = ("num_samples", "max_new_tokens", "settings", "stop_tokens", "stop_strings", "adapters")


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
    derives its integer random seeds from the keys, and also implements `HoldsWeights`.
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


@runtime_checkable
class HoldsWeights(Protocol):
    """Optional second protocol of samplers that keep their own copy of the parameters.

    Adapters are not part of it: they differ from call to call and are passed with each.
    """

    def update(self, params: Params, version: int) -> None:
        """Replaces the copy. Called before the first sample and whenever the parameters change.

        Args:
            params: the new parameters.
            version: number of the parameters, counted up from 1.
        """


def check_protocol(sampler: Any, name: str) -> None:
    """Checks that an object can be called as a `Sampler`.

    Args:
        sampler: the object.
        name: its name, for the error message.

    Raises:
        UserError: it cannot be called, or not with the arguments of the protocol.

    >>> check_protocol(3, "mine:make")
    Traceback (most recent call last):
    ...
    mass_jax.errors.UserError: mine:make is not a Sampler: int cannot be called; see mass_jax.sampling.Sampler
    """
    fault = own_code.call_fault(sampler, None, (), None, **dict.fromkeys(KEYWORDS))
    if fault:
        raise UserError(f"{name} is not a Sampler: {fault}; see mass_jax.sampling.Sampler")
