"""Gates: what a practice example must pass before an update may use it. Pure; no gate reads more than it is handed.

A gate is any object with a name and `judge`. Every gate judges every example, so that a record tells all that was wrong
with it; an example is trained on if every gate passes it. A gate that fails itself passes nothing.
"""

import collections
import dataclasses
import numbers
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from mass_jax.tasks.base import Example, Rejected
from mass_jax.tasks.near_duplicates import similarity as similarity_of
from mass_jax.tasks.near_duplicates import tokens

MAX_COMPARED = 10_000  # characters of a text that `Copy` and `Duplicates` compare


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One practice example with what the gates may ask of it.

    Args:
        text: what was written.
        parsed: what the task found in it.
        tokens: length of the text, in tokens of the model.
        source: "written" by the model, or "real".
        nll: loss of the solution under the unadapted model, in nats a token; None if it was not measured.
        agreement: share of the unadapted model's sampled answers that say the same; None if it was not measured.
        recomputed: whether the solution is what the task computes for the problem; None where it cannot.
    """

    text: str
    parsed: Example | Rejected
    tokens: int
    source: str = "written"
    nll: float | None = None
    agreement: float | None = None
    recomputed: bool | None = None


class GateResult(NamedTuple):
    """What one gate says of one example: the figure that it looked at, its limit, and why it failed."""

    passed: bool
    value: float | None = None
    limit: float | None = None
    reason: str = ""


@runtime_checkable
class Recomputes(Protocol):
    """A task that can compute answers itself."""

    def recompute(self, problem: str) -> str | None:
        """The right answer to a problem that it did not choose; None where it computes none. To raise says wrong."""
        ...


class Gate(Protocol):
    """Judges the examples of one question, in one go, since some faults show only among them."""

    name: ClassVar[str]

    def judge(self, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
        """One verdict an example."""
        ...


def run_gates(gates: Sequence[Gate], problem: str, candidates: Sequence[Candidate]) -> list[dict[str, GateResult]]:
    """Every gate's verdict on every example.

    >>> example = Candidate("q 1 + 1 = 2", Example("1 + 1", "2"), tokens=6)
    >>> run_gates([Length(max_tokens=4)], "2 + 2", [example])[0]["length"].passed
    False
    """
    found = {gate.name: _judged(gate, problem, candidates) for gate in gates}
    return [{name: verdicts[i] for name, verdicts in found.items()} for i in range(len(candidates))]


def _judged(gate: Gate, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
    try:
        verdicts = list(gate.judge(problem, candidates))
    except Exception as error:  # a gate of anyone's; what it could not judge does not pass
        return [GateResult(False, reason=f"the gate failed ({type(error).__name__})")] * len(candidates)
    if len(verdicts) != len(candidates) or not all(map(_is_verdict, verdicts)):
        return [GateResult(False, reason="the gate gave no verdict")] * len(candidates)
    return verdicts


def _is_verdict(found: Any) -> bool:
    """Whether a gate of anyone's gave what a record can hold."""
    if not isinstance(found, GateResult) or not isinstance(found.reason, str):
        return False
    return all(figure is None or isinstance(figure, numbers.Real) for figure in (found.value, found.limit))


@dataclasses.dataclass(frozen=True)
class Length:
    """Neither empty nor longer than was asked for; looks at the raw text, before any parser does."""

    name: ClassVar[str] = "length"
    max_tokens: int = 2048
    max_chars: int = 20_000

    def judge(self, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
        return [self._one(candidate) for candidate in candidates]

    def _one(self, candidate: Candidate) -> GateResult:
        if not candidate.text.strip():
            return GateResult(False, 0, 1, "empty")
        if len(candidate.text) > self.max_chars:
            return GateResult(False, len(candidate.text), self.max_chars, "too many characters")
        fits = candidate.tokens <= self.max_tokens
        return GateResult(fits, candidate.tokens, self.max_tokens, "" if fits else "too many tokens")


@dataclasses.dataclass(frozen=True)
class Parse:
    """The task finds a problem and a solution in it."""

    name: ClassVar[str] = "parse"

    def judge(self, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
        good = [isinstance(candidate.parsed, Example) for candidate in candidates]
        return [GateResult(passed, reason="" if passed else "gives no example") for passed in good]


@dataclasses.dataclass(frozen=True)
class Copy:
    """Rejects copies of the target problem, in any case, spacing or compatible letters, and texts that contain it.

    A text longer than `MAX_COMPARED` characters does not pass.
    """

    name: ClassVar[str] = "copy"
    max_similarity: float = 0.9

    def judge(self, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
        return [self._one(problem, candidate) for candidate in candidates]

    def _one(self, problem: str, candidate: Candidate) -> GateResult:
        text = _posed(candidate)
        posed, target = _plain(text), _plain(problem)
        if posed is None or target is None:
            return _too_long(text if posed is None else problem)
        similarity = 1.0 if _holds(posed, target) else similarity_of(posed.split(" "), target.split(" "))
        copied = similarity >= self.max_similarity
        return GateResult(not copied, similarity, self.max_similarity, "copies the target problem" if copied else "")


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Rejects a problem that an earlier example poses, and all examples if too few differ or all have one solution.

    A text longer than `MAX_COMPARED` characters does not pass.
    """

    name: ClassVar[str] = "duplicates"
    min_distinct: int = 3

    def judge(self, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
        posed = [_plain(_posed(candidate)) for candidate in candidates]
        parsed = [(posed[i], c.parsed.solution) for i, c in enumerate(candidates) if isinstance(c.parsed, Example)]
        problems = {found for found, _ in parsed} - {None}
        if len(problems) < self.min_distinct:
            return [GateResult(False, len(problems), self.min_distinct, "too few different problems")] * len(candidates)
        if len({_plain(solution) or solution for _, solution in parsed}) == 1:
            return [GateResult(False, 1, 2, "one solution to every problem")] * len(candidates)
        seen: collections.Counter[str] = collections.Counter()
        return [self._one(_posed(c), found, seen) for c, found in zip(candidates, posed, strict=True)]

    @staticmethod
    def _one(text: str, posed: str | None, seen: collections.Counter[str]) -> GateResult:
        if posed is None:
            return _too_long(text)
        seen[posed] += 1
        return GateResult(seen[posed] == 1, seen[posed], 1, "" if seen[posed] == 1 else "was posed before")


@dataclasses.dataclass(frozen=True)
class AnswerCheck:
    """The solution is right where the task can compute it, else the model's own sampled answers agree often enough.

    Args:
        min_agreement: least share of the samples.
        samples: how many answers are sampled for each example's problem.
    """

    name: ClassVar[str] = "answer"
    min_agreement: float = 0.05
    samples: int = 16

    def judge(self, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
        return [self._one(candidate) for candidate in candidates]

    def _one(self, candidate: Candidate) -> GateResult:
        if candidate.recomputed is not None:
            return GateResult(
                candidate.recomputed, reason="" if candidate.recomputed else "the task computes another answer"
            )
        if candidate.agreement is None:
            return GateResult(False, None, self.min_agreement, "not measured")
        agreed = candidate.agreement >= self.min_agreement
        reason = "" if agreed else "sampled answers disagree"
        return GateResult(agreed, candidate.agreement, self.min_agreement, reason)


class Calibration:
    """Surprises the unadapted model no more than real examples do.

    Args:
        margin: nats a token above the most surprising real example.
        real_nll: losses of real examples.
    """

    name: ClassVar[str] = "calibration"

    def __init__(self, margin: float = 0.5, real_nll: Sequence[float] = ()):
        self.limit = max(real_nll, default=float("-inf")) + margin

    def judge(self, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
        return [self._one(candidate) for candidate in candidates]

    def _one(self, candidate: Candidate) -> GateResult:
        if candidate.nll is None:
            return GateResult(False, None, self.limit, "not measured")
        usual = candidate.nll <= self.limit  # False for NaN
        return GateResult(usual, candidate.nll, self.limit, "" if usual else "more surprising than real examples")


SHIPPED: Mapping[str, Any] = {gate.name: gate for gate in (Length, Parse, Copy, Duplicates, AnswerCheck, Calibration)}


def _posed(candidate: Candidate) -> str:
    """The problem that an example poses; all of its text if no task found one."""
    return candidate.parsed.problem if isinstance(candidate.parsed, Example) else candidate.text


class _Folds(dict[int, str]):
    """Each character without case and look-alike forms, as a table for `str.translate` that fills itself.

    Normalizing a whole text takes time quadratic in its runs of combining marks, so characters are normalized alone.
    """

    def __missing__(self, code: int) -> str:
        folded = unicodedata.normalize("NFKD", chr(code)).casefold()
        if len(self) < 10_000:
            self[code] = folded
        return folded


_FOLDS = _Folds()


def _plain(text: str) -> str | None:
    """A text without case, signs of layout and look-alike forms of letters; None if it is too long to compare."""
    folded = text.translate(_FOLDS) if len(text) <= MAX_COMPARED else text
    return " ".join(tokens(folded)) if len(folded) <= MAX_COMPARED else None


def _too_long(text: str) -> GateResult:
    return GateResult(False, len(text), MAX_COMPARED, "too long to compare")


def _holds(text: str, part: str) -> bool:
    """Whether a run of whole tokens of `text` is `part`."""
    return bool(part) and f" {part} " in f" {text} "
