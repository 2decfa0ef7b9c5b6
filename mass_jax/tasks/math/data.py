"""Problem sets: MATH, MATH-500, GSM8K and SVAMP by name or hub id, and local files with the same fields."""

import collections
import json
import pathlib
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mass_jax.tasks.math.sources import SOURCES, BadRow, Source, source_of, to_problem
from mass_jax.tasks.problem import Problem

_OWN_FIELDS = ("problem", "solution", "answer")


class Loaded(NamedTuple):
    """Problems, and how many rows were left out for each reason."""

    problems: list[Problem]
    skipped: collections.Counter[str]


def load(source: str, split: str = "train", *, strict: bool = False) -> Loaded:
    """Reads a problem set.

    Args:
        source: a name ("math", "math500", "gsm8k", "svamp"), a hub id, or a local path: JSONL, Parquet, or a directory
            that `datasets` saved. What exists on disk is taken from disk.
        split: of a hub data set or a saved `DatasetDict`; a plain file has none.
        strict: raise on the first bad row in place of counting it.

    Raises:
        ValueError: for an unknown source or split, an unreadable file, a bad row if `strict`, or no good row at all.
    """
    path = pathlib.Path(source)
    if path.exists():
        rows, known, prefix = _local_rows(path, split), None, path.stem
    else:
        known = SOURCES.get(source) or next((s for s in SOURCES.values() if s.hub_id == source), None)
        rows, prefix = _hub_rows(source, known, split), f"{source}/{split}"
    return from_rows(rows, prefix, known, strict=strict)


def from_rows(
    rows: Iterable[Mapping[str, Any]], prefix: str, source: Source | None = None, *, strict: bool = False
) -> Loaded:
    """Problems from rows; ids are made of `prefix` and the row number where a row has none.

    Raises:
        ValueError: for a bad row if `strict`, or if no row is good.

    >>> loaded = from_rows([{"question": "1+1?", "answer": "It is 2. #### 2"}, {"question": None}], "demo")
    >>> loaded.problems[0].answer, dict(loaded.skipped)
    ('2', {"missing field 'question'": 1})
    """
    rows = list(rows)
    source = source or source_of(rows)
    if source is None:
        fields = sorted(map(str, rows[0])) if rows and isinstance(rows[0], Mapping) else "no rows with fields"
        raise ValueError(f"{prefix}: fields {fields} are of no known source; rename them to {sorted(_OWN_FIELDS)}")
    problems: list[Problem] = []
    skipped: collections.Counter[str] = collections.Counter()
    seen: set[str] = set()
    for number, row in enumerate(rows):
        try:
            problem = to_problem(source, row, f"{prefix}-{number:05d}")
            if problem.id in seen:
                raise BadRow("id seen before")
        except BadRow as reason:
            if strict:
                fix = "mend the row, or load with strict=False (--bad_rows=skip)"
                raise ValueError(f"{prefix}: row {number}: {reason}; {fix}") from None
            skipped[str(reason)] += 1
        else:
            seen.add(problem.id)
            problems.append(problem)
    if not problems:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in skipped.most_common(3))
        raise ValueError(f"{prefix}: no row is usable ({reasons})")
    return Loaded(problems, skipped)


def sample(problems: Sequence[Problem], count: int, seed: int) -> list[Problem]:
    """Draws distinct problems; the draw depends on the seed and the set, not on the order in which it came.

    Raises:
        ValueError: if there are fewer than `count`.

    >>> few = [Problem(str(i), "p", "s", "a") for i in range(10)]
    >>> sample(few, 3, seed=0) == sample(few[::-1], 3, seed=0)
    True
    """
    if count > len(problems):
        raise ValueError(f"{count} problems asked of a set that has {len(problems)}; ask for fewer")
    ordered = sorted(problems, key=lambda problem: problem.id)
    return random.Random(f"mass sample {seed}").sample(ordered, count)


def _local_rows(path: pathlib.Path, split: str) -> Iterable[Any]:
    if path.suffix == ".jsonl":
        return _json_lines(path)
    # Imported late: they take seconds, and verifier workers never need them.
    import datasets
    import pyarrow.parquet

    try:
        if path.is_dir():
            saved = datasets.load_from_disk(str(path))
            return _pick_split(saved, split, path) if isinstance(saved, datasets.DatasetDict) else saved
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    raise ValueError(f"{path}: unknown kind of file; give .jsonl, .parquet or a directory that datasets saved")


def _json_lines(path: pathlib.Path) -> list[Any]:
    """Rows of a JSONL file; read here, because `datasets` refuses the whole file for one row of another type."""
    rows: list[Any] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError:
                rows.append("not JSON")  # no mapping: counted as a bad row
    return rows


def _hub_rows(name: str, known: Source | None, split: str) -> Iterable[Any]:
    import datasets

    hub_id = known.hub_id if known else name
    if known is None and name.count("/") != 1:
        raise ValueError(f"{name!r} is neither a file nor a hub id; known names: {', '.join(SOURCES)}")
    try:
        parts = [datasets.load_dataset(hub_id, config, split=split) for config in (known.configs if known else (None,))]
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{hub_id!r} ({split}) cannot be loaded: {reason}; or give a local path") from None
    return (row for part in parts for row in part)


def _pick_split(saved: Any, split: str, path: pathlib.Path) -> Any:
    if split not in saved:
        raise ValueError(f"no split {split!r} in {path}; it has {', '.join(saved)}")
    return saved[split]
