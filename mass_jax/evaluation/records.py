"""Evaluation records: JSON Lines appended batch by batch, so that a kill costs at most the current batch."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from mass_jax.runtime import agreed_maximum, is_first, jsonl

Record = Mapping[str, Any]

_KEY = ("seed", "column", "id")  # what one record of a row differs from another in


class RecordLog:
    """The records of one row.

    Args:
        path: the file, created if absent. A cut last line and an incomplete batch are dropped and evaluated again, and
            so is everything from the first damaged line on, with a warning.
        batches: how many records each batch of the row has, in order.

    Attributes:
        done: number of batches whose records are in the file.
    """

    def __init__(self, path: pathlib.Path, batches: Sequence[int]):
        log = jsonl.read_log(path)
        whole = [row for row in log.rows if not log.damaged or row.line < log.damaged[0].line]
        records = _distinct(path, whole)
        kept = self.done = 0
        for size in batches:
            if kept + size > len(records):
                break
            kept, self.done = kept + size, self.done + 1
        if is_first():
            if log.damaged:
                line, reason = log.damaged[0]
                logging.warning("%s:%d: %s; records from there on are evaluated again", path, line, reason)
            if not path.exists() or log.torn or log.damaged or kept < len(log.rows):
                jsonl.rewrite(path, records[:kept])
        self.done = agreed_maximum(self.done if is_first() else 0)
        self._path = path

    def append(self, records: Sequence[Record]) -> None:
        """Writes one batch, from one process; once this returns, the batch survives a crash of the machine."""
        if is_first():
            jsonl.append(self._path, records, sync=True)


def read_records(path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of a file that can be read; an absent file has none.

    Damaged lines and repeated records are left out with a warning that names the file and the line.
    """
    log = jsonl.read_log(path)
    jsonl.warn_of_damage(path, [*log.damaged, *log.torn])
    return _distinct(path, log.rows)


def _distinct(path: pathlib.Path, rows: Sequence[jsonl.Row]) -> list[dict[str, Any]]:
    """The first record of every problem, column and seed; two runs in one workdir write each of them twice."""
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        known = all(isinstance(row.value.get(name), str | int) for name in _KEY)
        found.setdefault(tuple(row.value[name] for name in _KEY) if known else row.line, row.value)
    if repeated := len(rows) - len(found):
        logging.warning("%s: %d records are there more than once; the first of each counts", path, repeated)
    return list(found.values())
