"""Gates: checks that a synthetic example must pass before an update may train on it. Pure functions of their input.

A gate is any object with a `name` and a `judge` method. Every gate judges every example, so that the record lists all
failures. An example is used if every gate passes it. A gate that raises passes no example.
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

MAX_COMPARED = 10_000  # characters; `Copy` and `Duplicates` reject longer texts


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One example with the measurements that gates may use.

    Attributes:
        text: the written text.
        parsed: the example that the task parsed from it, or why there is none.
        tokens: length of the text in tokens.
        source: "written" by the model, or "real".
        nll: loss of the solution under the unadapted model, in nats per token; None if not measured.
        agreement: share of the unadapted model's sampled answers that equal the solution's; None if not measured.
        recomputed: whether the task computes the same answer; None if it computes none.
    """

    text: str
    parsed: Example | Rejected
    tokens: int
    source: str = "written"
    nll: float | None = None
    agreement: float | None = None
    recomputed: bool | None = None


class GateResult(NamedTuple):
    """Verdict of a gate on an example.

    Attributes:
        passed: True if the example may be used.
        value: measured value, if any.
        limit: limit on the value, if any.
        reason: why the example failed; "" if it passed.
    """

    passed: bool
    value: float | None = None
    limit: float | None = None
    reason: str = ""


@runtime_checkable
class Recomputes(Protocol):
    """Optional task protocol: computes answers to problems."""

    def recompute(self, problem: str) -> str | None:
        """Returns the answer to any problem, or None if it computes none. An exception counts as incorrect."""
        ...


class Gate(Protocol):
    """Protocol of a gate; it sees all examples of a question at once, since some faults show only in comparison."""

    name: ClassVar[str]

    def judge(self, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
        """Returns one verdict per example.

        Args:
            problem: the question that the examples are for.
            candidates: the examples.
        """
        ...


def run_gates(gates: Sequence[Gate], problem: str, candidates: Sequence[Candidate]) -> list[dict[str, GateResult]]:
    """Returns the verdict of every gate, by name, on each example.

    Args:
        gates: the gates.
        problem: the question that the examples are for.
        candidates: the examples.

    >>> example = Candidate("q 1 + 1 = 2", Example("1 + 1", "2"), tokens=6)
    >>> run_gates([Length(max_tokens=4)], "2 + 2", [example])[0]["length"].passed
    False
    """
    found = {gate.name: _judged(gate, problem, candidates) for gate in gates}
    return [{name: verdicts[i] for name, verdicts in found.items()} for i in range(len(candidates))]


def _judged(gate: Gate, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
    try:
        verdicts = list(gate.judge(problem, candidates))
    except Exception as error:  # raised by a user's gate
        return [GateResult(False, reason=f"the gate failed ({type(error).__name__})")] * len(candidates)
    if len(verdicts) != len(candidates) or not all(map(_is_verdict, verdicts)):
        return [GateResult(False, reason="the gate returned no valid verdict")] * len(candidates)
    return verdicts


def _is_verdict(found: Any) -> bool:
    """Whether a user's gate returned a result that the log can hold."""
    if not isinstance(found, GateResult) or not isinstance(found.reason, str):
        return False
    return all(figure is None or isinstance(figure, numbers.Real) for figure in (found.value, found.limit))


class _PerExample:
    """Base of gates that judge each example separately."""

    def judge(self, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
        """Returns one verdict per example; see `Gate.judge`."""
        return [self._one(problem, candidate) for candidate in candidates]

    def _one(self, problem: str, candidate: Candidate) -> GateResult:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Length(_PerExample):
    """Rejects empty and overlong texts; checks the raw text before any parsing.

    Attributes:
        max_tokens: largest number of tokens.
        max_chars: largest number of characters.
    """

    name: ClassVar[str] = "length"
    max_tokens: int = 2048
    max_chars: int = 20_000

    def _one(self, problem: str, candidate: Candidate) -> GateResult:
        if not candidate.text.strip():
            return GateResult(False, 0, 1, "empty")
        if len(candidate.text) > self.max_chars:
            return GateResult(False, len(candidate.text), self.max_chars, "too many characters")
        fits = candidate.tokens <= self.max_tokens
        return GateResult(fits, candidate.tokens, self.max_tokens, "" if fits else "too many tokens")


@dataclasses.dataclass(frozen=True)
class Parse(_PerExample):
    """Rejects texts in which the task finds no problem and solution."""

    name: ClassVar[str] = "parse"

    def _one(self, problem: str, candidate: Candidate) -> GateResult:
        passed = isinstance(candidate.parsed, Example)
        return GateResult(passed, reason="" if passed else "contains no example")


@dataclasses.dataclass(frozen=True)
class Copy(_PerExample):
    """Rejects copies of the target problem, in any case, spacing or compatible letters, and texts that contain it.

    A text longer than `MAX_COMPARED` characters does not pass.

    Attributes:
        max_similarity: similarity from which a problem counts as a copy, in (0, 1].
    """

    name: ClassVar[str] = "copy"
    max_similarity: float = 0.9

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
    """Rejects repeated problems, and all examples if too few differ or all have the same solution.

    A text longer than `MAX_COMPARED` characters does not pass.

    Attributes:
        min_distinct: smallest number of distinct problems.
    """

    name: ClassVar[str] = "duplicates"
    min_distinct: int = 3

    def judge(self, problem: str, candidates: Sequence[Candidate]) -> list[GateResult]:
        """Returns one verdict per example; see `Gate.judge`."""
        posed = [_plain(_posed(candidate)) for candidate in candidates]
        parsed = [(posed[i], c.parsed.solution) for i, c in enumerate(candidates) if isinstance(c.parsed, Example)]
        problems = {found for found, _ in parsed} - {None}
        if len(problems) < self.min_distinct:
            return [GateResult(False, len(problems), self.min_distinct, "too few different problems")] * len(candidates)
        if len({_plain(solution) or solution for _, solution in parsed}) == 1:
            return [GateResult(False, 1, 2, "the same solution to every problem")] * len(candidates)
        seen: collections.Counter[str] = collections.Counter()
        return [self._one(_posed(c), found, seen) for c, found in zip(candidates, posed, strict=True)]

    @staticmethod
    def _one(text: str, posed: str | None, seen: collections.Counter[str]) -> GateResult:
        if posed is None:
            return _too_long(text)
        seen[posed] += 1
        return GateResult(seen[posed] == 1, seen[posed], 1, "" if seen[posed] == 1 else "repeats an earlier problem")


@dataclasses.dataclass(frozen=True)
class AnswerCheck(_PerExample):
    """Rejects incorrect solutions: recomputed where the task can, else compared with the model's sampled answers.

    Attributes:
        min_agreement: smallest share of samples that agree.
        samples: sampled answers per example.
    """

    name: ClassVar[str] = "answer"
    min_agreement: float = 0.05
    samples: int = 16

    def _one(self, problem: str, candidate: Candidate) -> GateResult:
        if candidate.recomputed is not None:
            return GateResult(
                candidate.recomputed, reason="" if candidate.recomputed else "the task computes another answer"
            )
        if candidate.agreement is None:
            return GateResult(False, None, self.min_agreement, "not measured")
        agreed = candidate.agreement >= self.min_agreement
        reason = "" if agreed else "sampled answers disagree"
        return GateResult(agreed, candidate.agreement, self.min_agreement, reason)


class Calibration(_PerExample):
    """Rejects examples that surprise the unadapted model more than real examples do.

    Args:
        margin: nats per token above the largest loss of a real example.
        real_nll: losses of real examples, in nats per token.
    """

    name: ClassVar[str] = "calibration"

    def __init__(self, margin: float = 0.5, real_nll: Sequence[float] = ()):
        self.limit = max(real_nll, default=float("-inf")) + margin

    def _one(self, problem: str, candidate: Candidate) -> GateResult:
        if candidate.nll is None:
            return GateResult(False, None, self.limit, "not measured")
        usual = candidate.nll <= self.limit  # False for NaN
        return GateResult(usual, candidate.nll, self.limit, "" if usual else "more surprising than real examples")


SHIPPED: Mapping[str, Any] = {gate.name: gate for gate in (Length, Parse, Copy, Duplicates, AnswerCheck, Calibration)}


def _posed(candidate: Candidate) -> str:
    """The problem of an example, or its whole text if it was not parsed."""
    return candidate.parsed.problem if isinstance(candidate.parsed, Example) else candidate.text


class _Folds(dict[int, str]):
    """Table for `str.translate` that removes case and compatibility forms of a character; filled on demand.

    Characters are normalized one by one, since normalizing a text is quadratic in its runs of combining marks.
    """

    def __missing__(self, code: int) -> str:
        folded = unicodedata.normalize("NFKD", chr(code)).casefold()
        if len(self) < 10_000:
            self[code] = folded
        return folded


_FOLDS = _Folds()


def _plain(text: str) -> str | None:
    """A text without case, layout and compatibility forms of letters; None if it is too long to compare."""
    folded = text.translate(_FOLDS) if len(text) <= MAX_COMPARED else text
    return " ".join(tokens(folded)) if len(folded) <= MAX_COMPARED else None


def _too_long(text: str) -> GateResult:
    return GateResult(False, len(text), MAX_COMPARED, "too long to compare")


def _holds(text: str, part: str) -> bool:
    """Whether `part` occurs in `text` as a run of whole tokens."""
    return bool(part) and f" {part} " in f" {text} "
