"""The protocol of a tracker, and the names of metrics in trackers."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from mass_jax.render.markdown import cell

NAMES = ("tensorboard", "wandb", "trackio")
TRL_NAMES = {
    "kl_to_start": "kl",
    "examples_cut_off": "completions/clipped_ratio",
    "examples_entropy": "entropy",
    "examples_length": "completions/mean_length",
    "examples_length_min": "completions/min_length",
    "examples_length_max": "completions/max_length",
}
"""Metrics that TRL logs under another name than metrics.jsonl. Those with the same name are absent.

Where no examples are sampled, as in Solver GRPO, the completions are the attempts."""


class Run(NamedTuple):
    """A curve in a tracker.

    Attributes:
        name: shown name, such as "tiny/seed0/mass".
        group: name of the workdir, shared by its runs.
        id: unique id, the same after a resume.
        directory: directory for files of the tracker.
        settings: configuration, ready for JSON.
        resumed: whether an earlier process opened this run.
        next_step: first step that this process will log.
    """

    name: str
    group: str
    id: str
    directory: pathlib.Path
    settings: Mapping[str, Any]
    resumed: bool
    next_step: int


class Tracker(Protocol):
    """A run that is open in a tracker.

    Attributes:
        first_step: first step that the tracker lacks; earlier ones are not logged again.
    """

    first_step: int

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs finite scalars of one step."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Logs a table; all rows have the same columns."""

    def figure(self, name: str, path: pathlib.Path) -> None:
        """Logs a PNG file."""

    def text(self, name: str, text: str) -> None:
        """Logs text literally, without interpreting it as Markdown or HTML."""

    def close(self, failed: bool) -> None:
        """Writes what is pending and ends the run."""


def scalars(row: Mapping[str, float | None]) -> dict[str, float]:
    """Returns the values to log, under TRL's names where TRL has the quantity; values that are not finite are left out.

    >>> scalars({"step": 3, "kl_to_start": 0.5, "reward": float("nan"), "loss": None})
    {'kl': 0.5}
    >>> scalars({"attempts_length": 7}), scalars({"attempts_length": 7, "examples_length": 9})
    ({'completions/mean_length': 7.0}, {'attempts_length': 7.0, 'completions/mean_length': 9.0})
    """
    sampled = "examples_" if any(name.startswith("examples_") for name in row) else "attempts_"
    names = {name.replace("examples_", sampled): trl for name, trl in TRL_NAMES.items()}
    finite = {name: float(value) for name, value in row.items() if value is not None and math.isfinite(value)}
    return {names.get(name, name): value for name, value in finite.items() if name != "step"}


def literal(text: str) -> str:
    """Returns text as a code block in Markdown.

    >>> literal("a\\n# b")
    '    a\\n    # b'
    """
    return "\n".join("    " + line for line in text.splitlines())


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table in Markdown.

    >>> markdown([{"row": "Base", "accuracy": 0.5}])
    '| row | accuracy |\\n|---|---|\\n| Base | 0.5 |'
    """
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    lines = ["| " + " | ".join(cell(text) for text in line) + " |" for line in cells]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
