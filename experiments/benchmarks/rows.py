"""Rows of a benchmark by what they measure, each saved before the next measurement begins."""

from collections.abc import Callable, Sequence
from typing import Any

from mass_jax import runtime


class Rows:
    """Rows by what they measure; every change is saved before the next measurement begins.

    Args:
        done: rows of an earlier run.
        save: takes all rows whenever one has changed.
        stop: polled after every save.
    """

    def __init__(
        self, done: Sequence[dict[str, Any]], save: Callable[[list[dict[str, Any]]], None], stop: runtime.Stop
    ):
        self._rows = {row_key(row): row for row in done}
        self._save, self._stop = save, stop

    def get(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the row that measures the same."""
        return self._rows.get(row_key(row))

    def keep(self, *rows: dict[str, Any]) -> None:
        """Puts rows in the place of those that measure the same, and saves all.

        Raises:
            runtime.Interrupted: a stop was asked for; the rows are saved.
        """
        self._rows |= {row_key(row): row for row in rows}
        self._save(list(self._rows.values()))
        self._stop.poll()


def row_key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Returns what identifies a measurement."""
    return tuple(row[name] for name in ("adjoint", "policy", "optimizer", "model", "K", "m", "tokens", "dtype"))
