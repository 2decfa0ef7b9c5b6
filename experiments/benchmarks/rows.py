"""Benchmark rows, each saved before the next measurement begins."""

from collections.abc import Callable, Sequence
from typing import Any

from mass_jax import runtime


class Rows:
    """Benchmark rows keyed by what they measure, saved after every change.

    Args:
        done: rows of an earlier run.
        save: called with all rows after every change.
        stop: polled after every save.
    """

    def __init__(
        self, done: Sequence[dict[str, Any]], save: Callable[[list[dict[str, Any]]], None], stop: runtime.Stop
    ):
        self._rows = {row_key(row): row for row in done}
        self._save, self._stop = save, stop

    def get(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the row with the same key, or None."""
        return self._rows.get(row_key(row))

    def keep(self, *rows: dict[str, Any]) -> None:
        """Adds rows, replacing those with the same key, and saves all.

        Raises:
            runtime.Interrupted: If a stop was requested; the rows are saved.
        """
        self._rows |= {row_key(row): row for row in rows}
        self._save(list(self._rows.values()))
        self._stop.poll()


def row_key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Returns the key that identifies a measurement."""
    names = ("adjoint", "policy", "optimizer", "model", "K", "m", "tokens", "dtype")
    return (*(row[name] for name in names), row.get("tasks", 1))  # older rows have one task
