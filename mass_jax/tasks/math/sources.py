r"""Known data sets and their field names, and conversion of their rows to problems."""

import dataclasses
import itertools
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from mass_jax.tasks.base import Problem
from mass_jax.tasks.grading.latex import last_boxed

MOST_DIGITS = 10_000  # per number; expanding an exponent of nine digits would exhaust memory

_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
_MISSING = ("nan", "null")  # what a table writes as text where an answer is missing
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadRow(ValueError):
    """A row that cannot be converted to a problem; the message is a short reason, which is counted."""


def boxed_answer(solution: str) -> str:
    r"""Extracts the answer of a MATH solution: the content of its last `\boxed{...}`.

    Raises:
        BadRow: If the box is missing or incomplete.
    """
    answer = last_boxed(solution)
    if answer is None:
        raise BadRow("no boxed answer in 'solution'")
    return answer


def hashed_answer(solution: str) -> str:
    """Extracts the answer of a GSM8K solution: the text after ####, without thousands separators.

    Raises:
        BadRow: If #### is missing.

    Example:
        >>> hashed_answer("1000 + 200 = 1200\\n#### 1,200")
        '1200'
    """
    if "####" not in solution:
        raise BadRow("no '####' in 'answer'")
    return solution.rsplit("####", 1)[1].strip().replace(",", "")


def without_calculator_marks(solution: str) -> str:
    """Removes GSM8K's calculator annotations such as `<<48/2=24>>`.

    Example:
        >>> without_calculator_marks("48/2 = <<48/2=24>>24 clips")
        '48/2 = 24 clips'
    """
    return re.sub(r"<<[^<>]*>>", "", solution)


@dataclasses.dataclass(frozen=True)
class Source:
    """Location and field names of a data set.

    Attributes:
        hub_id: Repository on the Hugging Face hub.
        problem: Fields that contain the problem text; several are joined with a space.
        solution: Field with the solution.
        answer: Field with the answer, or a function that extracts the answer from the solution.
        subject: Field with the subject, or "" if there is none.
        level: Field with the difficulty, or "" if there is none.
        id: Field with a unique id, or "" if there is none.
        configs: Configurations of the hub data set, which are concatenated.
        clean: Function applied to the solution.
    """

    hub_id: str
    problem: tuple[str, ...]
    solution: str
    answer: str | Callable[[str], str]
    subject: str = ""
    level: str = ""
    id: str = ""
    configs: tuple[str | None, ...] = (None,)
    clean: Callable[[str], str] = str


_MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
SOURCES: Mapping[str, Source] = {
    "math": Source(
        "EleutherAI/hendrycks_math", ("problem",), "solution", boxed_answer, "type", "level", configs=_MATH_SUBJECTS
    ),
    "math500": Source("HuggingFaceH4/MATH-500", ("problem",), "solution", "answer", "subject", "level", id="unique_id"),
    "gsm8k": Source(
        "openai/gsm8k", ("question",), "answer", hashed_answer, configs=("main",), clean=without_calculator_marks
    ),
    "svamp": Source("ChilleD/SVAMP", ("Body", "Question"), "Equation", "Answer", "Type", id="ID"),
}
# Default field names, for the user's own files.
OWN = Source("", ("problem",), "solution", "answer", "subject", "level", id="unique_id")


def source_of(rows: Iterable[Any]) -> Source | None:
    """Returns the source whose fields most of the first 100 rows have, or None; ties go to the default names."""
    rows = [row for row in itertools.islice(rows, 100) if isinstance(row, Mapping)]
    votes = {source: sum(_needed(source) <= row.keys() for row in rows) for source in (OWN, *SOURCES.values())}
    best = max(votes, key=votes.__getitem__)
    return best if votes[best] else None


def fields_of(source: Source) -> set[str]:
    """Returns all fields that are read from the rows of a source."""
    return _needed(source) | {source.subject, source.level, source.id} - {""}


def _needed(source: Source) -> set[str]:
    return {*source.problem, source.solution, *([source.answer] if isinstance(source.answer, str) else [])}


def to_problem(source: Source, row: Any, default_id: str) -> Problem:
    """Converts one row to a `Problem`.

    Args:
        source: Field names.
        row: The row, a mapping unless it is bad.
        default_id: Id of the problem if the row has none.

    Returns:
        The problem. Level, subject and id may be missing from the row.

    Raises:
        BadRow: If a required field is missing, NaN or infinite, has a wrong type, or is empty.
    """
    if not isinstance(row, Mapping):
        raise BadRow(f"wrong type of row: {type(row).__name__}")
    problem = " ".join(_text(row, name).strip() for name in source.problem)
    solution = _text(row, source.solution)
    answer = source.answer(solution) if callable(source.answer) else _text(row, source.answer)
    if not answer.strip():
        raise BadRow("empty answer")
    if answer.strip().lower() in _MISSING:
        raise BadRow(f"missing answer ({answer.strip()})")
    if not problem.strip():
        raise BadRow("empty problem")
    level = _optional(row, source.level)
    return Problem(
        id=_optional(row, source.id) or default_id,
        problem=problem,
        solution=source.clean(solution),
        answer=answer.strip(),
        subject=_optional(row, source.subject) or "",
        level=None if level in (None, "Level ?") else level.removeprefix("Level "),
    )


def number_text(value: Any) -> str | None:
    """Formats a number in decimal notation without an exponent.

    Args:
        value: An integer, a `Decimal`, or a float of any precision. A float is formatted with the fewest digits that
            identify it, and without a fraction if it is whole; a `Decimal` keeps its digits.

    Returns:
        The digits; "NaN", "Infinity" or "-Infinity"; or None if the value is not a number.

    Raises:
        BadRow: If the text would have more than `MOST_DIGITS` digits.

    Example:
        >>> number_text(1e22), number_text(72.0), number_text(Decimal("0.1000")), number_text(Decimal("1e-7"))
        ('10000000000000000000000', '72', '0.1000', '0.0000001')
    """
    if isinstance(value, Decimal):
        exact = value
    elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
        exact = Decimal(int(value))
    elif isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        exact = Decimal(str(value))  # `str` gives the shortest round-trip text, for NumPy floats too
    else:
        return None
    if not exact.is_finite():
        return str(exact)
    if max(abs(exact.adjusted()), len(exact.as_tuple().digits)) > MOST_DIGITS:
        raise BadRow(f"a number of more than {MOST_DIGITS} digits")
    if exact.is_zero() and exact.is_signed():
        return "0"
    return f"{exact:f}" if isinstance(value, Decimal) else f"{exact:f}".removesuffix(".0")


def _text(row: Mapping[str, Any], name: str) -> str:
    """Returns a required field as text."""
    value = row.get(name)
    if value is None:
        raise BadRow(f"missing field {name!r}")
    text = _as_text(value, name)
    if text in _NOT_FINITE and not isinstance(value, str):
        raise BadRow(f"missing field {name!r} ({text})")
    return text


def _optional(row: Mapping[str, Any], name: str) -> str | None:
    """Returns an optional field as text, or None if it is missing, null, empty or not finite."""
    value = row.get(name) if name else None
    if value is None:
        return None
    text = _as_text(value, name)
    return None if not text or (text in _NOT_FINITE and not isinstance(value, str)) else text


def _as_text(value: Any, name: str) -> str:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise BadRow(f"{name!r} has half of a surrogate pair, which is not a character")
        return value
    text = number_text(value)
    if text is None:
        raise BadRow(f"wrong type of {name!r}: {type(value).__name__}")
    return text
