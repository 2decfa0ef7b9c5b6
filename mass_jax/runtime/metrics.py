"""Metrics as JSON lines that survive a kill, and progress that suits a terminal or a log file."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping

import tqdm
from absl import logging

from mass_jax.runtime.distributed import is_first
from mass_jax.runtime.workdir import write_atomically

LOG_EVERY_SECONDS = 10.0


class MetricsLog:
    """Appends one JSON object a step to `path`; of many processes the first writes.

    Args:
        path: the file, made if absent.
        next_step: first step that will be written. Lines of that step and later ones are left from work that was lost
            with a kill and will be redone to the same numbers; they are dropped, as is a torn last line.
    """

    def __init__(self, path: pathlib.Path, next_step: int):
        self._path = path
        if not is_first():
            return
        kept = [row for row in read_metrics(path) if row["step"] < next_step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends the metrics of one step; not-a-number becomes null, since JSON has no NaN."""
        if not is_first():
            return
        row = {"step": step, **{name: _json_number(value) for name, value in metrics.items()}}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_metrics(path: pathlib.Path) -> list[dict]:
    """All whole lines of a metrics file; an absent file has none."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    # what follows the last newline is empty, or a line that a kill tore
    return [json.loads(line) for line in lines[:-1]]


def progress(label: str, start: int, stop: int) -> Iterator[tuple[int, "Reporter"]]:
    """Counts from `start` to `stop` with a bar on a terminal and a log line every few seconds elsewhere.

    Yields:
        (i, report); call `report(name=value, ...)` to show figures of this step.
    """
    terminal = sys.stderr.isatty() and is_first()
    with tqdm.tqdm(total=stop, initial=start, desc=label, disable=not terminal, dynamic_ncols=True) as bar:
        reporter = Reporter(label, stop, bar if terminal else None)
        for i in range(start, stop):
            yield i, reporter
            reporter.step_done(i + 1)
            bar.update()


class Reporter:
    """Shows the figures of the latest step."""

    def __init__(self, label: str, stop: int, bar: tqdm.tqdm | None):
        self._label, self._stop, self._bar = label, stop, bar
        self._figures: dict[str, float] = {}
        self._last_line = time.monotonic()

    def __call__(self, **figures: float) -> None:
        self._figures = figures
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in figures.items()})

    def step_done(self, done: int) -> None:
        if self._bar is not None:
            return
        if is_first() and (done == self._stop or time.monotonic() - self._last_line > LOG_EVERY_SECONDS):
            self._last_line = time.monotonic()
            shown = " ".join(f"{name}={value:.3g}" for name, value in self._figures.items())
            logging.info("%s %d/%d %s", self._label, done, self._stop, shown)


def _json_number(value: float) -> float | None:
    value = float(value)
    return round(value, 9) if math.isfinite(value) else None
