"""Requests of a harness and their results. Plain Python, no JAX."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from mass_jax.sampling.choose import Settings

GREEDY = Settings(temperature=0.0)


@dataclasses.dataclass(frozen=True)
class Request:
    """A text to continue, or a question to answer.

    Attributes:
        text: the prompt, or the question.
        max_tokens: largest number of generated tokens; None is half of the model's positions, or fewer if
            the prompt leaves fewer.
        stops: strings before which the result ends.
        settings: sampling settings; greedy by default.
        name: name of the request, which seeds its random numbers if it is sampled.
    """

    text: str
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    settings: Settings = GREEDY
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Completion:
    """The result of a request.

    Attributes:
        text: the generated text, before the first stop string.
        prompt_tokens: number of prompt tokens.
        new_tokens: number of generated tokens.
        finish: "stop", or "length" if the text hit a limit of tokens.
        details: further facts for the harness's log, such as the event of an adapted answer.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    finish: Literal["stop", "length"]
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Score(NamedTuple):
    """The log-likelihood of a continuation.

    Attributes:
        logprob: sum of its tokens' log-probabilities, in nats.
        greedy: whether greedy decoding would generate it.
    """

    logprob: float
    greedy: bool


def cut(text: str, stops: tuple[str, ...]) -> str:
    """Returns a text up to its first stop string.

    >>> cut("4 2; 7", (";", "\\n"))
    '4 2'
    """
    return text[: min([text.find(stop) for stop in stops if stop in text], default=len(text))]
