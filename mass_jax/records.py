"""Records of an evaluation: JSON lines, appended batch by batch, so that a kill costs at most what was under way."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.runtime import agreed_maximum, is_first, write_atomically

Record = Mapping[str, Any]


class RecordLog:
    """The records of one row.

    Args:
        path: the file, made if absent. A torn last line and a batch that is not whole are dropped: they are redone.
        batches: how many records each batch of the row has, in order.

    Attributes:
        done: batches whose records stand in the file.
    """

    def __init__(self, path: pathlib.Path, batches: Sequence[int]):
        lines = _whole_lines(path)
        kept = self.done = 0
        for size in batches:
            if kept + size > len(lines):
                break
            kept, self.done = kept + size, self.done + 1
        whole = path.exists() and path.stat().st_size == sum(len(line) + 1 for line in lines)
        if is_first() and not (whole and kept == len(lines)):
            write_atomically(path, "".join(line.decode() + "\n" for line in lines[:kept]))
        self.done = agreed_maximum(self.done if is_first() else 0)
        self._path = path

    def append(self, records: Sequence[Record]) -> None:
        """Writes one batch; when it returns, the batch outlives a crash of the machine. One process writes."""
        if not is_first():
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))
            file.flush()
            os.fsync(file.fileno())


def read_records(path: pathlib.Path) -> list[dict[str, Any]]:
    """The whole records of a file; an absent one has none."""
    return [json.loads(line) for line in _whole_lines(path)]


def _whole_lines(path: pathlib.Path) -> list[bytes]:
    """Lines up to the first that a kill tore: one without an end, or that is no JSON."""
    if not path.exists():
        return []
    whole = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            json.loads(line)
        except ValueError:
            break
        whole.append(line)
    return whole
