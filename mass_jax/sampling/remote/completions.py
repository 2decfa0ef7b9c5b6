"""Requests for completions and their answers, which are checked field by field.

Shape suffixes: M samples per prompt, T tokens per sample, P prompt tokens.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mass_jax.errors import UserError
from mass_jax.sampling.remote.client import LOG, Client, Refused

_BASE, _PER_TOKEN = 1 << 16, 1 << 10  # bytes of an answer; vLLM sends about 200 per token
# In vLLM's messages on texts beyond its context; the last if the prompt fills it, since requests ask for tokens.
_TOO_LONG = ("context length", "model length", "max_model_len", "max_tokens must be at least 1")


class Completion(NamedTuple):
    """One sample as a server reports it.

    Attributes:
        tokens_T: generated tokens, int32, including the stop token.
        logprobs_T: their log-probabilities, float32.
    """

    tokens_T: np.ndarray
    logprobs_T: np.ndarray


class Asked(NamedTuple):
    """A request for completions of one prompt.

    Attributes:
        model: name of the base model or of an adapter.
        prompt: token ids.
        num_samples: M.
        max_new_tokens: largest number of tokens per sample.
        temperature: 0 is greedy.
        seed: random seed of the first sample; sample m has seed + m.
        stop_tokens: a sample ends with the first of these.
        scores_prompt: whether to return the log-probabilities of the prompt, at temperature 1.
    """

    model: str
    prompt: Sequence[int]
    num_samples: int
    max_new_tokens: int
    temperature: float
    seed: int
    stop_tokens: Sequence[int] = ()
    scores_prompt: bool = False

    def body(self) -> dict[str, Any]:
        """Returns the body of the request.

        Values that the server would otherwise take from the model's generation_config.json are given explicitly.
        """
        scored = {"prompt_logprobs": 0} if self.scores_prompt else {}
        return scored | {
            "model": self.model,
            "prompt": list(self.prompt),
            "n": self.num_samples,
            "max_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": self.seed,
            "stop_token_ids": list(self.stop_tokens),
            "ignore_eos": True,  # the stop tokens contain it
            "logprobs": 0,
            "return_token_ids": True,
        }


def complete(client: Client, asked: Asked) -> tuple[list[Completion], np.ndarray]:
    """Requests completions of one prompt.

    Args:
        client: client of the server.
        asked: the request.

    Returns:
        M completions, and the log-probabilities [P - 1] of the prompt's tokens after the first; empty if they were not
        requested.

    Raises:
        UserError: the request fails, or its answer has another form; one line.
    """
    tokens = asked.num_samples * asked.max_new_tokens + len(asked.prompt)
    try:
        answer = client.post("completions", asked.body(), _BASE + _PER_TOKEN * tokens)
    except Refused as error:
        long = any(text in error.reason for text in _TOO_LONG)
        fix = "raise the server's --max-model-len, or shorten the texts" if long else LOG
        raise error.with_fix(fix) from None
    try:
        choices = answer["choices"]
        _check(
            isinstance(choices, list) and len(choices) == asked.num_samples,
            f"choices is not a list of {asked.num_samples}",
        )
        by_index = {choice["index"]: choice for choice in choices}
        rows = [_completion(by_index[m], asked) for m in range(asked.num_samples)]
        scores = _prompt_scores(by_index[0]["prompt_logprobs"], asked.prompt) if asked.scores_prompt else np.zeros(0)
    except UserError:
        raise
    except _Malformed as error:
        fault = str(error)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError) as error:
        fault = f"{type(error).__name__} {str(error)[:60]!r}"
    else:
        return rows, scores
    raise UserError(f"--sampler_url={client.url} answered in another form ({fault}); use a current vLLM")


class _Malformed(Exception):
    """An answer of another form."""


def _check(good: bool, fault: str) -> None:
    if not good:
        raise _Malformed(fault)


def _completion(choice: dict[str, Any], asked: Asked) -> Completion:
    """Reads one choice."""
    tokens: Any = choice.get("token_ids")
    logprobs: Any = choice["logprobs"]["token_logprobs"]
    _check(isinstance(tokens, list), "it has no token_ids")
    _check(len(tokens) <= asked.max_new_tokens, f"{len(tokens)} tokens, not {asked.max_new_tokens} at most")
    _check(all(type(token) is int for token in tokens), "token_ids are not integers")
    _check(isinstance(logprobs, list) and len(logprobs) == len(tokens), "not one log-probability per token")
    _check(all(type(value) in (int, float) for value in logprobs), "a log-probability is not a number")
    ended = bool(tokens) and tokens[-1] in asked.stop_tokens
    if not ended and len(tokens) < asked.max_new_tokens:
        reason = str(choice.get("finish_reason"))[:20]
        # vLLM shortens a sample that its context has no room for, without an error.
        context = " and a larger --max-model-len" if reason == "length" else ""
        raise UserError(
            f"the server cut a sample after {len(tokens)} of {asked.max_new_tokens} tokens (finish_reason {reason!r}, "
            f"no stop token); start it with --generation-config=vllm{context}"
        )
    return Completion(np.array(tokens, np.int32), np.array(logprobs, np.float32))


def _prompt_scores(rows: Any, prompt: Sequence[int]) -> np.ndarray:
    """Reads the log-probabilities of the tokens of a prompt after the first."""
    _check(isinstance(rows, list) and len(rows) == len(prompt), "not one entry of prompt_logprobs per token")
    values = [row[str(token)]["logprob"] for row, token in zip(rows[1:], prompt[1:], strict=True)]
    _check(all(type(value) in (int, float) for value in values), "a prompt log-probability is not a number")
    return np.array(values, np.float32)
