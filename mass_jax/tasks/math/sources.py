r"""Where problems come from, and what their fields are called: one table, a row a data set.

`data.load` reads any of them by name, and local files whose rows have the same fields.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mass_jax.tasks.math.latex import last_boxed
from mass_jax.tasks.problem import Problem


class BadRow(ValueError):
    """A row that is no problem; the message is a short reason that is counted."""


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


def _needed(source: Source) -> set[str]:
    return {*source.problem, source.solution, *([source.answer] if isinstance(source.answer, str) else [])}


def to_problem(source: Source, row: Any, default_id: str) -> Problem:
    """One row as a `Problem`.

    Raises:
        BadRow: for a missing field, a wrong type or an empty answer. A level or subject that is null is allowed.
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


def _text(row: Mapping[str, Any], name: str) -> str:
    if row.get(name) is None:
        raise BadRow(f"missing field {name!r}")
    value = row[name]
    if isinstance(value, int | float) and not isinstance(value, bool):  # SVAMP's answers are numbers in some copies
        value = f"{value:g}" if abs(value) < 1e6 else str(value)
    if not isinstance(value, str):
        raise BadRow(f"wrong type of {name!r}: {type(value).__name__}")
    return value


def _optional(row: Mapping[str, Any], name: str) -> str | None:
    """A field that may be missing or null; numbers become text."""
    value = row.get(name) if name else None
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRow(f"wrong type of {name!r}: {type(value).__name__}")
    return str(value)
