"""Loads problem sets: MATH, MATH-500, GSM8K and SVAMP by name or hub id, and local files."""

import collections
import pathlib
import random
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from mass_jax import hub_access
from mass_jax.errors import UserError
from mass_jax.runtime import jsonl
from mass_jax.tasks.base import Problem
from mass_jax.tasks.math import data_columns, data_csv, data_tables
from mass_jax.tasks.math.sources import SOURCES, BadRow, Source, source_of, to_problem

_OWN_FIELDS = ("answer", "problem", "solution")
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_CSV_SUFFIX = ".csv"
_NO_COLUMNS: Mapping[str, str] = {}


class LoadedProblems(NamedTuple):
    """A loaded problem set.

    Attributes:
        problems: Problems in the order of their rows.
        skipped: Number of skipped rows by reason.
        first: Place of the first skipped row for each reason, such as "line 3" or "row 0".
    """

    problems: list[Problem]
    skipped: collections.Counter[str]
    first: dict[str, str]


def load(
    source: str, split: str = "train", *, strict: bool = False, columns: Mapping[str, str] = _NO_COLUMNS
) -> LoadedProblems:
    """Loads a problem set.

    Args:
        source: A name ("math", "math500", "gsm8k", "svamp") or a hub id, each optionally with "@" and a revision, or a
            local path: JSON Lines or a JSON array (.jsonl, .ndjson, .json) or CSV with a header (.csv), each optionally
            with .gz, Parquet, a directory saved by `datasets`, or a copy of a repository on the hub. An existing path
            takes precedence over a name.
        split: Split of a hub data set, a copy of one or a saved `DatasetDict`; ignored for plain files.
        strict: Whether to raise on the first bad row instead of skipping it.
        columns: Column of the data for each name of a field, such as {"problem": "question", "answer": "label"};
            ignored for the named data sets, whose fields are known.

    Returns:
        The problems, with counts of the skipped rows.

    Raises:
        ValueError: If the source or split is unknown, a file is unreadable or lacks one of `columns`, a row is bad and
            `strict` is set, or no row is usable.
    """
    path, more = pathlib.Path(source), {*columns.values()}
    if path.exists():
        rows, known, prefix = _local_rows(path, split, more), None, path.stem
    else:
        name, revision = hub_access.split_revision(source)
        known = SOURCES.get(name) or next((s for s in SOURCES.values() if s.hub_id == name), None)
        rows, prefix = _numbered(data_tables.hub_rows(name, known, split, revision, more)), f"{source}/{split}"
    rows = data_columns.renamed(rows, columns, source) if columns and known is None else rows
    return _problems(rows, prefix, source, known, strict)


def from_rows(
    rows: Iterable[Mapping[str, Any]], prefix: str, source: Source | None = None, *, strict: bool = False
) -> LoadedProblems:
    """Converts rows to problems.

    Args:
        rows: Rows as mappings from field names to values.
        prefix: Prefix of the ids of rows without an id; the row number is appended.
        source: Field names; None detects them.
        strict: Whether to raise on the first bad row instead of skipping it.

    Returns:
        The problems, with counts of the skipped rows.

    Raises:
        ValueError: If a row is bad and `strict` is set, or no row is usable.

    Example:
        >>> loaded = from_rows([{"question": "1+1?", "answer": "It is 2. #### 2"}, {"question": None}], "demo")
        >>> loaded.problems[0].answer, dict(loaded.skipped)
        ('2', {"missing field 'question'": 1})
    """
    return _problems(_numbered(rows), prefix, prefix, source, strict)


def _numbered(rows: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(f"row {number}", row) for number, row in enumerate(rows)]


def _problems(
    rows: Sequence[tuple[str, Any]], prefix: str, name: str, source: Source | None, strict: bool
) -> LoadedProblems:
    """Converts (place, row) pairs to problems; errors name the source and the place."""
    source = source or _recognized([row for _, row in rows], name)
    loaded = LoadedProblems([], collections.Counter(), {})
    seen: set[str] = set()
    for number, (place, row) in enumerate(rows):
        try:
            if isinstance(row, jsonl.DamagedLine):
                raise BadRow(row.reason)
            problem = to_problem(source, row, f"{prefix}-{number:05d}")
            if problem.id in seen:
                raise BadRow("id seen before")
        except BadRow as reason:
            if strict:
                fix = "fix the row, or load with strict=False (--bad_rows=skip)"
                raise UserError(f"{name}: {place}: {reason}; {fix}") from None
            loaded.skipped[str(reason)] += 1
            loaded.first.setdefault(str(reason), place)
        else:
            seen.add(problem.id)
            loaded.problems.append(problem)
    if not loaded.problems:
        counts = loaded.skipped.most_common(3)
        reasons = "; ".join(f"{count} x {reason}, first in {loaded.first[reason]}" for reason, count in counts)
        raise UserError(f"{name}: no row is usable ({reasons})")
    return loaded


def _recognized(rows: Sequence[Any], name: str) -> Source:
    if not rows:
        raise UserError(f"{name} has no rows; provide rows with the fields {list(_OWN_FIELDS)}")
    if source := source_of(rows):
        return source
    row = next((row for row in rows if isinstance(row, Mapping)), None)
    if row is None:
        raise UserError(f"{name} has no JSON objects, only values such as {str(rows[0])[:40]!r}; provide JSON objects")
    fields = sorted(map(str, row))
    raise UserError(
        f"{name}: fields {fields} match no known data set; rename them to {list(_OWN_FIELDS)}, or pass "
        f"--columns=problem:COLUMN,solution:COLUMN,answer:COLUMN (without solutions, the answer's column twice)"
    )


def sample(problems: Sequence[Problem], count: int, seed: int) -> list[Problem]:
    """Samples distinct problems, independently of their order.

    Args:
        problems: Problems with distinct ids.
        count: Number of problems.
        seed: Random seed.

    Returns:
        `count` problems.

    Raises:
        ValueError: If there are fewer than `count` problems.

    Example:
        >>> few = [Problem(str(i), "p", "s", "a") for i in range(10)]
        >>> sample(few, 3, seed=0) == sample(few[::-1], 3, seed=0)
        True
    """
    if count > len(problems):
        raise ValueError(f"{count} problems requested, but the set has {len(problems)}; request fewer")
    ordered = sorted(problems, key=lambda problem: problem.id)
    return random.Random(f"mass sample {seed}").sample(ordered, count)


def _local_rows(path: pathlib.Path, split: str, more: Set[str] = frozenset()) -> list[tuple[str, Any]]:
    """Returns (place, row) pairs; tables are read with the known fields and `more`."""
    plain = path.name.lower().removesuffix(".gz")
    if path.is_dir():
        return _numbered(data_tables.directory_rows(path, split, more))
    if plain.endswith(_CSV_SUFFIX):
        return data_csv.rows(path)
    if plain.endswith(_JSON_SUFFIXES):
        rows = jsonl.scan(path, exact=True)
        return [(f"line {row.line}", row.value if isinstance(row, jsonl.Line) else row) for row in rows]
    if path.suffix.lower() == ".parquet":
        return _numbered(data_tables.parquet_rows(path, more))
    kinds = f"{', '.join(_JSON_SUFFIXES)}, {_CSV_SUFFIX}, .parquet or a directory saved by datasets"
    raise UserError(f"{path}: unknown file type; use {kinds}")
