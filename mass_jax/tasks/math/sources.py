r"""Where problems come from, and what their fields are called: one table, a row a data set.

`data.load` reads any of them by name, and local files whose rows have the same fields.
"""

import dataclasses
import itertools
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from mass_jax.tasks.base import Problem
from mass_jax.tasks.grading.latex import last_boxed

MOST_DIGITS = 10_000  # of a number written out: an exponent of nine digits would fill the memory

_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadRow(ValueError):
    """A row that is not a problem; the message is a short reason that is counted."""


def boxed_answer(solution: str) -> str:
    """The answer of a MATH solution: its last box, by balanced braces."""
    answer = last_boxed(solution)
    if answer is None:
        raise BadRow("no boxed answer in 'solution'")
    return answer


def hashed_answer(solution: str) -> str:
    """The answer of a GSM8K solution: what follows ####, without thousands separators.

    >>> hashed_answer("1000 + 200 = 1200\\n#### 1,200")
    '1200'
    """
    if "####" not in solution:
        raise BadRow("no '####' in 'answer'")
    return solution.rsplit("####", 1)[1].strip().replace(",", "")


def without_calculator_marks(solution: str) -> str:
    """GSM8K's `<<48/2=24>>` taken out.

    >>> without_calculator_marks("48/2 = <<48/2=24>>24 clips")
    '48/2 = 24 clips'
    """
    return re.sub(r"<<[^<>]*>>", "", solution)


@dataclasses.dataclass(frozen=True)
class Source:
    """Fields of a data set.

    Args:
        hub_id, configs: what `datasets.load_dataset` is asked for, configuration by configuration.
        problem, solution: fields of text; several are joined by a space.
        answer: a field, or what finds the answer in the solution field.
        subject, level, id: fields, or "" where the source has none.
        clean: applied to the solution.
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
# Rows that carry our own field names, such as files written by hand.
OWN = Source("", ("problem",), "solution", "answer", "subject", "level", id="unique_id")


def source_of(rows: Iterable[Any]) -> Source | None:
    """The source whose fields most of the first rows have, or None; our own field names are looked for first."""
    rows = [row for row in itertools.islice(rows, 100) if isinstance(row, Mapping)]
    votes = {source: sum(_needed(source) <= row.keys() for row in rows) for source in (OWN, *SOURCES.values())}
    best = max(votes, key=votes.__getitem__)
    return best if votes[best] else None


def fields_of(source: Source) -> set[str]:
    """Every field that is read from a row of a source."""
    return _needed(source) | {source.subject, source.level, source.id} - {""}


def _needed(source: Source) -> set[str]:
    return {*source.problem, source.solution, *([source.answer] if isinstance(source.answer, str) else [])}


def to_problem(source: Source, row: Any, default_id: str) -> Problem:
    """Converts one row to a `Problem`.

    Raises:
        BadRow: for a missing field, a wrong type or an empty answer. NaN and infinities count as missing. A level,
            subject or id may be missing.
    """
    if not isinstance(row, Mapping):
        raise BadRow(f"wrong type of row: {type(row).__name__}")
    problem = " ".join(_text(row, name).strip() for name in source.problem)
    solution = _text(row, source.solution)
    answer = source.answer(solution) if callable(source.answer) else _text(row, source.answer)
    if not answer.strip():
        raise BadRow("empty answer")
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
    """A number as plain digits, never with an exponent.

    Args:
        value: an integer, a `Decimal`, or a float of any precision. A float gets the fewest digits that tell it from
            its neighbors, and no fraction if it is whole; a `Decimal` keeps the digits it has.

    Returns:
        The text; "NaN", "Infinity" or "-Infinity"; or None if the value is no number.

    Raises:
        BadRow: the text would be longer than `MOST_DIGITS`.

    >>> number_text(1e22), number_text(72.0), number_text(Decimal("0.1000")), number_text(Decimal("1e-7"))
    ('10000000000000000000000', '72', '0.1000', '0.0000001')
    """
    if isinstance(value, Decimal):
        exact = value
    elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
        exact = Decimal(int(value))
    elif isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        exact = Decimal(str(value))  # the shortest text that reads back as the same float, for NumPy's floats too
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
    """A field that must be there; numbers become text."""
    value = row.get(name)
    if value is None:
        raise BadRow(f"missing field {name!r}")
    text = _as_text(value, name)
    if text in _NOT_FINITE and not isinstance(value, str):
        raise BadRow(f"missing field {name!r} ({text})")
    return text


def _optional(row: Mapping[str, Any], name: str) -> str | None:
    """A field that may be missing, null, empty or not finite; numbers become text."""
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
