"""What the log gets of a question: one record that says all that was done and why. Pure."""

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
    """Everything found out about one question.

    Args:
        name: the question's id.
        problem: its text.
        slot, size: its place in its batch.
        keys: its four keys, [4, 2].
        candidates, verdicts, used: its examples, what the gates said, and which were trained on.
        steps, rate: of the inner loop in effect.
        losses, norms, factor: of its update; None without one.
        adapter: SHA-256 of the adapter; None without an update.
        regression: figures before and after; None if it did not come to that.
        decision: one of `DECISIONS`.
        reason: why it is not "adapted".
        before, after: answer of the unadapted and the adapted model; None where there is none.
        prompts: under which practice is written and the question answered, by the name of their key.
        tokens, flops, seconds: cost, by phase or in all.
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
        """What is released."""
        return self.after if self.decision == "adapted" else self.before


def event(outcome: Outcome, texts: Texts, identity: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """The record of one question.

    Args:
        outcome: what was found.
        texts: how the log keeps texts.
        identity: hashes of weights, tokenizer, code, settings, policy, platform.
        context: run, user, task, request, weights after.
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
    """One verdict; the reason of a gate of anyone's may hold the text that it judged."""
    return {
        "passed": bool(verdict.passed),
        "value": number(verdict.value),
        "limit": number(verdict.limit),
        "reason": verdict.reason if name in SHIPPED else texts.keep(verdict.reason),
    }


def number(value: Any) -> float | str | None:
    """A number as JSON can hold it: the shortest spelling of its own precision; what is not finite by its name.

    >>> number(np.float32(0.1)), number(float("nan")), number(None)
    (0.1, 'nan', None)
    """
    if value is None:
        return None
    if not math.isfinite(value):
        return str(float(value))
    return float(str(value)) if isinstance(value, np.floating) else float(value)


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
