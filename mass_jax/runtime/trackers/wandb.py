"""Weights & Biases. Its environment variables, such as WANDB_MODE and WANDB_PROJECT, apply."""

import html
import importlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.runtime.trackers.base import Run

PROJECT = "mass_jax"
LOGIN_SECONDS = 60.0  # a terminal is asked for a key; training goes on if nobody answers


class Wandb:
    """A run of wandb, resumed by its id.

    Args:
        run: the run; local files are written to its directory "wandb", unless WANDB_DIR is set.
    """

    def __init__(self, run: Run):
        self._wandb = importlib.import_module("wandb")
        given = {} if "WANDB_LOGIN_TIMEOUT" in os.environ else {"login_timeout": LOGIN_SECONDS}
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.id,
            name=run.name,
            group=os.environ.get("WANDB_RUN_GROUP", run.group),
            dir=os.environ.get("WANDB_DIR", str(run.directory)),
            config=dict(run.settings),
            resume="allow" if run.resumed else None,
            reinit="create_new",  # a run of the caller stays open
            settings=self._wandb.Settings(**given),
        )
        # The server knows which steps it has, and accepts only later ones. Offline, a killed process may have lost
        # some, so every directory gets the whole curve, and the newest one suffices for `wandb sync`.
        self.first_step = self._run.starting_step

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the scalars of a step."""
        self._run.log(dict(values), step=step)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Logs a table."""
        self._run.log({name: self._wandb.Table(list(rows[0]), [list(row.values()) for row in rows])})

    def figure(self, name: str, path: pathlib.Path) -> None:
        """Logs a copy of a PNG file."""
        self._run.log({name: self._wandb.Image(str(path))})

    def text(self, name: str, text: str) -> None:
        """Logs text as preformatted, escaped HTML."""
        self._run.log({name: self._wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False)})

    def close(self, failed: bool) -> None:
        """Ends the run and waits until it is uploaded."""
        self._run.finish(exit_code=int(failed))
