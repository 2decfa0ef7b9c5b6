"""Opening of trackers: ids that survive a resume, errors that never stop a run, and secrets that stay out of logs."""

import contextlib
import functools
import importlib
import json
import os
import pathlib
import types
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from mass_jax import lazy
from mass_jax.runtime import jsonl
from mass_jax.runtime.distributed import is_first
from mass_jax.runtime.trackers.base import Run, Tracker, scalars
from mass_jax.runtime.workdir import write_atomically

IDS_NAME = "trackers.json"
_CLASSES = {"tensorboard": "TensorBoard", "wandb": "Wandb", "trackio": "Trackio"}
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD")


def check_installed(names: Sequence[str]) -> None:
    """Checks that the packages of trackers are installed, without importing them.

    Raises:
        MissingExtraError: If one is not; the message has the command that installs it.

    >>> check_installed(())
    """
    for name in names:
        lazy.require(f"--tracker={name}", name)


def open_trackers(
    names: Sequence[str],
    directory: pathlib.Path,
    root: pathlib.Path,
    settings: Mapping[str, Any],
    next_step: int = 0,
    rows: Sequence[Mapping[str, Any]] = (),
) -> "Trackers":
    """Returns the trackers of one run; nothing is opened or written before the first value is logged.

    Args:
        names: trackers, of `NAMES`; none are opened on processes other than the first.
        directory: directory of the run, which keeps its ids in trackers.json.
        root: the workdir, which gives the run its name.
        settings: configuration, ready for JSON.
        next_step: first step that will be logged.
        rows: rows of metrics.jsonl before `next_step`, for trackers that lack them.
    """
    group = root.resolve().name
    name = f"{group}/{pathlib.PurePath(os.path.relpath(directory, root)).as_posix()}"

    def opened(tracker: str) -> Tracker:
        found = _read_ids(directory / IDS_NAME).get(tracker)
        run = Run(name, group, found or uuid.uuid4().hex[:12], directory, settings, found is not None, next_step)
        return _open(tracker, run)

    chosen = names if is_first() else ()
    return Trackers([_Guarded(tracker, functools.partial(opened, tracker), rows) for tracker in chosen])


def _open(tracker: str, run: Run) -> Tracker:
    """Opens a run in a tracker, and stores its id."""
    lazy.require(f"--tracker={tracker}", tracker)
    module = importlib.import_module(f"mass_jax.runtime.trackers.{tracker}")
    opened = getattr(module, _CLASSES[tracker])(run)
    if not run.resumed:
        path = run.directory / IDS_NAME
        write_atomically(path, json.dumps(_read_ids(path) | {tracker: run.id}) + "\n")
    return opened


class Trackers:
    """Several trackers as one. Leaving the context closes them.

    Args:
        guarded: the trackers.
    """

    def __init__(self, guarded: "Sequence[_Guarded]"):
        self._guarded = guarded

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        for guarded in self._guarded:
            guarded.close(failed=kind is not None)

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Logs the scalars of one step, under their names in metrics.jsonl."""
        for guarded in self._guarded:
            guarded.log(step, values)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Logs a table; all rows have the same columns."""
        for guarded in self._guarded if rows else ():
            guarded.call(lambda tracker: tracker.table(name, rows))

    def figure(self, name: str, path: pathlib.Path) -> None:
        """Logs a PNG file."""
        for guarded in self._guarded:
            guarded.call(lambda tracker: tracker.figure(name, path))

    def text(self, name: str, text: str) -> None:
        """Logs text literally."""
        for guarded in self._guarded:
            guarded.call(lambda tracker: tracker.text(name, text))


class _Guarded:
    """A tracker that is opened on first use; its first error is logged in one line and ends its use."""

    def __init__(self, name: str, opened: Callable[[], Tracker], rows: Sequence[Mapping[str, Any]]):
        self._name, self._opened, self._rows = name, opened, rows
        self._tracker: Tracker | None = None
        self._failed = False

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Logs the scalars of one step unless the tracker has them."""
        self.call(lambda tracker: tracker.log(step, scalars(values)) if step >= tracker.first_step else None)

    def call(self, use: Callable[[Tracker], None]) -> None:
        """Uses the tracker, unless it failed before."""
        if self._failed:
            return
        try:
            if self._tracker is None:
                self._tracker = self._opened()
                for row in self._rows:
                    if row["step"] >= self._tracker.first_step:
                        self._tracker.log(row["step"], scalars(row))
            use(self._tracker)
        except Exception as error:  # of a library and its network
            self._failed = True
            logging.warning("--tracker=%s stopped, the run goes on without it: %s", self._name, one_line(error))

    def close(self, failed: bool) -> None:
        """Closes the tracker if it was opened."""
        if self._tracker is None:
            return
        if self._failed:
            with contextlib.suppress(Exception):
                self._tracker.close(failed)
        self.call(lambda tracker: tracker.close(failed))


def one_line(error: Exception) -> str:
    """Returns the kind and the first line of an error, without the values of secret environment variables.

    >>> one_line(OSError("disk full\\nat 3"))
    'OSError: disk full'
    """
    text = " ".join((str(error).splitlines() or [""])[0].split())
    for name, value in os.environ.items():
        if len(value) >= 4 and any(word in name.upper() for word in _SECRET):
            text = text.replace(value, "***")
    return f"{type(error).__name__}: {text[:300]}".removesuffix(": ")


def _read_ids(path: pathlib.Path) -> dict[str, str]:
    """Reads the ids of a run by tracker; none, with a warning, if the file is damaged."""
    if not path.exists():
        return {}
    try:
        ids = jsonl.loads(path.read_bytes())
        if not isinstance(ids, dict) or not all(isinstance(i, str) and i.isalnum() for i in ids.values()):
            raise jsonl.BadJson("not an object of ids")
    except jsonl.BadJson as error:
        logging.warning("%s: %s; trackers start new runs", path, error)
        return {}
    return ids
