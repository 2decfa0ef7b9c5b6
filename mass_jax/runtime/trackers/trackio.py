"""Trackio. Its environment variables, such as TRACKIO_DIR and TRACKIO_SPACE_ID, apply."""

import importlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.runtime.trackers.base import Run, literal

PROJECT = "mass_jax"


class Trackio:
    """A run of Trackio, resumed by its name, which ends with the id.

    Args:
        run: the run; Trackio stores it in its own directory.
    """

    def __init__(self, run: Run):
        self._trackio = importlib.import_module("trackio")
        self._run = self._trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=f"{run.name}-{run.id}",
            group=run.group,
            config=dict(run.settings),
            resume="allow",
            embed=False,
        )
        # One more than the last step that is stored. Trackio has no public name for it.
        self.first_step = self._run._next_step if run.resumed else 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the scalars of a step."""
        self._run.log(dict(values), step=step)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Logs a table."""
        data = [list(row.values()) for row in rows]
        self._run.log({name: self._trackio.Table(columns=list(rows[0]), data=data)})

    def figure(self, name: str, path: pathlib.Path) -> None:
        """Logs a copy of a PNG file."""
        self._run.log({name: self._trackio.Image(str(path))})

    def text(self, name: str, text: str) -> None:
        """Logs text as a code block."""
        self._run.log({name: self._trackio.Markdown(literal(text))})

    def close(self, failed: bool) -> None:
        """Ends the run and waits until it is written."""
        self._run.finish()
