"""Training metrics as JSON Lines, and progress reports for terminals and log files."""

import math
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import tqdm
from absl import logging

from mass_jax.runtime import jsonl
from mass_jax.runtime.distributed import is_first

LOG_EVERY_SECONDS = 10.0


class MetricsLog:
    """Log of training metrics, one JSON object per step, written by process 0.

    Args:
        path: file of the log, created if absent.
        next_step: first step that will be written. Rows of this step and later ones are dropped: the run was killed
            after it wrote them but before it saved a checkpoint, and will compute the same values again. Also dropped
            are a cut-off last line, damaged lines and repeated steps. A warning names missing earlier steps.

    Attributes:
        kept: rows that were not dropped; empty on processes other than the first.
    """

    def __init__(self, path: pathlib.Path, next_step: int):
        self._path = path
        self.kept: list[dict[str, Any]] = []
        if is_first():
            self.kept = [row for row in read_metrics(path, next_step) if row["step"] < next_step]
            jsonl.rewrite(path, self.kept)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends the metrics of one step; non-finite values become null, since JSON cannot represent them."""
        if is_first():
            jsonl.append(self._path, [{"step": step, **{name: _json_number(value) for name, value in metrics.items()}}])


def read_metrics(path: pathlib.Path, steps: int = 0) -> list[dict[str, Any]]:
    """Reads the intact rows of a metrics file; an absent file has none.

    Warnings name the first damaged line, repeated steps and missing steps.

    Args:
        path: file of the log.
        steps: number of finished steps, all of which the file should contain.

    Returns:
        The last row of each step, ordered by step.
    """
    log = jsonl.read_log(path)
    faulty = [jsonl.DamagedLine(line, fault) for line, row in log.rows if (fault := _fault(row))]
    jsonl.warn_of_damage(path, sorted([*log.damaged, *faulty, *log.torn]))
    rows = {row["step"]: row for _, row in log.rows if not _fault(row)}
    if repeated := len(log.rows) - len(faulty) - len(rows):
        logging.warning("%s: %d rows repeat a step; the last row of each step counts", path, repeated)
    if missing := [step for step in range(steps) if step not in rows]:
        logging.warning(
            "%s lacks %d of %d steps, the first is %d: it was cut or damaged", path, len(missing), steps, missing[0]
        )
    return [rows[step] for step in sorted(rows)]


def _fault(row: Mapping[str, Any]) -> str:
    """Returns why a row is not a valid row of `MetricsLog`, or "" if it is."""
    step = row.get("step")
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        return "no step"
    for name, value in row.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            return f"{name!r} is {jsonl.kind(value)} instead of a number"
    return ""


def progress(label: str, start: int, stop: int) -> Iterator[tuple[int, "Reporter"]]:
    """Counts from `start` to `stop`, with a progress bar on a terminal or a log line every few seconds elsewhere.

    Args:
        label: name of the work.
        start: first step.
        stop: end of the steps, exclusive.

    Yields:
        (i, report); call `report(name=value, ...)` to show values of this step.
    """
    terminal = sys.stderr.isatty() and is_first()
    with tqdm.tqdm(total=stop, initial=start, desc=label, disable=not terminal, dynamic_ncols=True) as bar:
        reporter = Reporter(label, stop, bar if terminal else None)
        for i in range(start, stop):
            yield i, reporter
            reporter.step_done(i + 1)
            bar.update()


class Reporter:
    """Shows values of the latest step."""

    def __init__(self, label: str, stop: int, bar: tqdm.tqdm | None):
        self._label, self._stop, self._bar = label, stop, bar
        self._figures: dict[str, float] = {}
        self._last_line = time.monotonic()

    def __call__(self, **figures: float) -> None:
        """Sets the values to show."""
        self._figures = figures
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in figures.items()})

    def step_done(self, done: int) -> None:
        """Logs the latest values every few seconds, unless a progress bar shows them."""
        if self._bar is not None:
            return
        if is_first() and (done == self._stop or time.monotonic() - self._last_line > LOG_EVERY_SECONDS):
            self._last_line = time.monotonic()
            shown = " ".join(f"{name}={value:.3g}" for name, value in self._figures.items())
            logging.info("%s %d/%d %s", self._label, done, self._stop, shown)


def _json_number(value: float) -> float | None:
    value = float(value)
    return round(value, 9) if math.isfinite(value) else None
