"""Evaluation records: JSON Lines appended batch by batch, so that a killed run loses at most the current batch."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from mass_jax.runtime import agreed_maximum, is_first, jsonl

Record = Mapping[str, Any]

_KEY = ("seed", "column", "id")  # identifies a record within a row


class RecordLog:
    """Log of one row's records.

    A truncated last line, an incomplete batch, and every record from the first damaged line on are dropped when the
    log is opened, so that they are evaluated again.

    Args:
        path: the file, created if absent.
        batches: number of records of each batch of the row, in order.

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
        """Appends one batch and syncs it to disk; only the first process writes."""
        if is_first():
            jsonl.append(self._path, records, sync=True)


def read_records(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the records of a file; an absent file has none.

    Damaged lines and repeated records are skipped, with a warning that names the file and the line.
    """
    log = jsonl.read_log(path)
    jsonl.warn_of_damage(path, [*log.damaged, *log.torn])
    return _distinct(path, log.rows)


def _distinct(path: pathlib.Path, rows: Sequence[jsonl.Line]) -> list[dict[str, Any]]:
    """Returns the first record of every problem, column and seed; concurrent runs in one workdir repeat them."""
    distinct: dict[Any, dict[str, Any]] = {}
    for row in rows:
        known = all(isinstance(row.value.get(name), str | int) for name in _KEY)
        distinct.setdefault(tuple(row.value[name] for name in _KEY) if known else row.line, row.value)
    if repeated := len(rows) - len(distinct):
        logging.warning("%s: %d records are repeated; the first of each is used", path, repeated)
    return list(distinct.values())
