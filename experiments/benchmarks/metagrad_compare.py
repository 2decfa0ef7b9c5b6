"""Ratios between two files of results of `experiments.bench_metagrad` or `mass_jax.metagrad.benchmark`."""

import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from mass_jax.errors import UserError
from mass_jax.render.markdown import cell

Row = dict[str, Any]
_KEY = ("case", "adjoint", "policy", "optimizer", "model", "K", "m", "tokens", "tasks", "dtype")
_SHOWN = ("case", "adjoint", "policy", "optimizer")
_MEMORY = {"temporaries": "temp_bytes", "peak": "peak_bytes"}


def compare(old_path: pathlib.Path, new_path: pathlib.Path) -> str:
    """Formats the ratios new / old of every case in both files as Markdown, and lists the other cases.

    The interval of a ratio of median times is a 95 % percentile bootstrap over the repetitions. The compiler's memory
    has no interval, since it is the same every time.

    Args:
        old_path: results before a change.
        new_path: results after it.

    Raises:
        UserError: a file is missing or damaged.
    """
    (old_header, old), (new_header, new) = read(old_path), read(new_path)
    lines = [f"Ratios {new_path} / {old_path}; below 1, the new one is better.", ""]
    for name in ("machine", "processor", "jax"):
        before, after = old_header.get(name), new_header.get(name)
        if before and after and before != after:
            kind = "versions of jax" if name == "jax" else "devices"
            lines += [f"Different {kind}: {before} (old), {after} (new).", ""]
    rows = [(names_of(key), old[key], new[key]) for key in old if key in new]
    measured = [name for name, column in _MEMORY.items() if any(a.get(column) and b.get(column) for _, a, b in rows)]
    lines.append("| " + " | ".join(["case", "time", "95 % interval", "repetitions", *measured]) + " |")
    lines.append("|---|---:|---:|---:|" + "---:|" * len(measured))
    for name, before, after in rows:
        memory = [_ratio(before.get(_MEMORY[each]), after.get(_MEMORY[each])) for each in measured]
        lines.append("| " + " | ".join([name, *_times(before, after), *memory]) + " |")
    for where, only in (("old", [*old.keys() - new.keys()]), ("new", [*new.keys() - old.keys()])):
        if only:
            lines += ["", f"Only in the {where} file:", "", *sorted(f"- {names_of(key)}" for key in only)]
    return "\n".join(lines) + "\n"


def read(path: pathlib.Path) -> tuple[Row, dict[tuple[Any, ...], Row]]:
    """Returns the header and the rows of a file by case.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        rows = {tuple(row.get(name, 1 if name == "tasks" else None) for name in _KEY): row for row in header["rows"]}
        for row in rows.values():
            np.asarray(row.get("times", ()), float)
    except OSError as error:
        raise UserError(f"--compare: {path}: {error.strerror}; give two files, old.json,new.json") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"--compare: {path} is not a file of results, such as metagrad.json") from None
    return header, rows


def names_of(key: Sequence[Any]) -> str:
    """Formats the key of a case."""
    found = dict(zip(_KEY, key, strict=True))
    if found["case"]:
        return str(found["case"])
    shown = cell(", ".join(str(found[name]) for name in _SHOWN if found[name]))
    return f"{shown}, K={found['K']}, m={found['m']}"


def _times(before: Row, after: Row) -> list[str]:
    """Returns the cells of the time: ratio of medians, interval, and number of repetitions."""
    old, new = before.get("times") or [], after.get("times") or []
    if not old or not new:
        return [_ratio(before.get("seconds"), after.get("seconds")), "", ""]
    counts = f"{len(old)}, {len(new)}"
    if min(len(old), len(new)) < 2:
        return [_ratio(statistics.median(old), statistics.median(new)), "", counts]
    low, high = interval(old, new)
    return [_ratio(statistics.median(old), statistics.median(new)), f"{low:.2f} to {high:.2f}", counts]


def interval(old: Sequence[float], new: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % percentile bootstrap interval of the ratio of medians new / old; at least two values each.

    >>> interval([1.0, 1.0, 1.0], [2.0, 2.0, 2.0])
    (2.0, 2.0)
    """
    import scipy.stats  # takes more than a second, and only --compare needs it

    found = scipy.stats.bootstrap(
        (np.asarray(old), np.asarray(new)),
        lambda a, b, axis: np.median(b, axis) / np.median(a, axis),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _ratio(before: float | None, after: float | None) -> str:
    """Formats a ratio; empty if it is not known."""
    return f"{after / before:.2f}" if before and after else ""
