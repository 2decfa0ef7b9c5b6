"""Event records: one per question, with everything that was done and why. Pure functions."""

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mass_jax.audit.texts import Texts
from mass_jax.serving.guards.gates import SHIPPED, Candidate, GateResult
from mass_jax.serving.stages import KEY_NAMES
from mass_jax.tasks.base import Example

DECISIONS = ("adapted", "too_few", "stopped", "rolled_back", "refused")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The full result for one question.

    Attributes:
        name: the question's id.
        problem: the question's text.
        slot: index in the batch.
        size: batch size.
        keys: the question's random keys, [4, 2].
        decision: one of `DECISIONS`.
        reason: why the decision is not "adapted".
        candidates: synthetic and real examples.
        verdicts: gate results of each example.
        used: True for examples that were trained on.
        steps: inner steps in effect.
        rate: inner learning rate in effect.
        losses: inner losses in nats per token; None without an update.
        norms: relative norms by projection; None without an update.
        factor: factor that scaled the update.
        adapter: SHA-256 of the adapter; None without an update.
        regression: suite scores before and after; None without an update.
        before: answer of the unadapted model.
        after: answer of the adapted model.
        prompts: prompts by the name of their random key.
        tokens: tokens by phase.
        flops: floating-point operations.
        seconds: seconds by phase.
    """

    name: str
    problem: str
    slot: int
    size: int
    keys: np.ndarray
    decision: str
    reason: str = ""
    candidates: Sequence[Candidate] = ()
    verdicts: Sequence[Mapping[str, GateResult]] = ()
    used: Sequence[bool] = ()
    steps: int = 0
    rate: float = 0.0
    losses: Sequence[float] | None = None
    norms: Mapping[str, float] | None = None
    factor: float = 1.0
    adapter: str | None = None
    regression: Mapping[str, float] | None = None
    before: str | None = None
    after: str | None = None
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tokens: Mapping[str, int] = dataclasses.field(default_factory=dict)
    flops: int = 0
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def answer(self) -> str | None:
        """The released answer."""
        return self.after if self.decision == "adapted" else self.before


def event(outcome: Outcome, texts: Texts, identity: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the log record of one question.

    Args:
        outcome: the result for the question.
        texts: how the log stores texts.
        identity: hashes of weights, tokenizer, code, settings, policy and platform.
        context: run, user, task, request and the hash of the weights afterwards.
    """

    def kept(text: str | None) -> Any:
        return None if text is None else texts.keep(text)

    return {
        "kind": "adaptation",
        "time": now(),
        **context,
        "identity": dict(identity),
        "question": outcome.name,
        "problem": kept(outcome.problem),
        "prompts": {name: kept(prompt) for name, prompt in outcome.prompts.items()},
        "batch": {"slot": outcome.slot, "size": outcome.size},
        "keys": dict(zip(KEY_NAMES, (key.astype(">u4").tobytes().hex() for key in outcome.keys), strict=True)),
        "examples": [
            _example(*parts, texts) for parts in zip(outcome.candidates, outcome.verdicts, outcome.used, strict=True)
        ],
        "inner": {"steps": outcome.steps, "rate": outcome.rate},
        "losses": None if outcome.losses is None else [number(loss) for loss in outcome.losses],
        "norms": None if outcome.norms is None else {name: number(norm) for name, norm in outcome.norms.items()},
        "factor": number(outcome.factor),
        "adapter": outcome.adapter,
        "regression": None if outcome.regression is None else {k: number(v) for k, v in outcome.regression.items()},
        "decision": outcome.decision,
        "reason": outcome.reason,
        "before": kept(outcome.before),
        "after": kept(outcome.after),
        "answer": kept(outcome.answer),
        "tokens": dict(outcome.tokens),
        "flops": outcome.flops,
        "seconds": {phase: round(seconds, 6) for phase, seconds in outcome.seconds.items()},
    }


def _example(candidate: Candidate, verdicts: Mapping[str, GateResult], used: bool, texts: Texts) -> dict[str, Any]:
    parsed = candidate.parsed
    return {
        "text": texts.keep(candidate.text),
        **(
            {"problem": texts.keep(parsed.problem), "solution": texts.keep(parsed.solution)}
            if isinstance(parsed, Example)
            else {"rejected": texts.keep(parsed.reason)}
        ),
        "source": candidate.source,
        "tokens": candidate.tokens,
        "nll": number(candidate.nll),
        "agreement": number(candidate.agreement),
        "verdicts": {name: _verdict(name, verdict, texts) for name, verdict in verdicts.items()},
        "used": bool(used),
    }


def _verdict(name: str, verdict: GateResult, texts: Texts) -> dict[str, Any]:
    """One gate result; the reason of a user's gate may quote the text, so it is stored like a text."""
    return {
        "passed": bool(verdict.passed),
        "value": number(verdict.value),
        "limit": number(verdict.limit),
        "reason": verdict.reason if name in SHIPPED else texts.keep(verdict.reason),
    }


def number(value: Any) -> float | str | None:
    """Converts a number for JSON: the shortest decimal of its own precision; non-finite values by name.

    >>> number(np.float32(0.1)), number(float("nan")), number(None)
    (0.1, 'nan', None)
    """
    if value is None:
        return None
    if not math.isfinite(value):
        return str(float(value))
    return float(str(value)) if isinstance(value, np.floating) else float(value)


def now() -> str:
    """Returns the current time in UTC, to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
