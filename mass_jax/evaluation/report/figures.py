"""Figures of the report: accuracy by row, gain by subject (the paper's Figure 2), training curves."""

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mass_jax.evaluation.report.table import drawn_subjects
from mass_jax.render import plot

CURVES = (
    ("outer_loss", "outer loss\n(nats/token)", 1),
    ("reward", "mean reward −dL/ds\n(nats/token)", 1),
    ("useful_share", "useful examples\n(%)", 100),
    ("right_rate", "correct attempts\n(%)", 100),
    ("scorer_auc", "AUC of scores\n(1 = perfect)", 1),
    ("reward_auc", "AUC of rewards\n(1 = perfect)", 1),
)
_SMOOTHING = 4  # steps to each side


def accuracy(table: Mapping[str, Any], path: pathlib.Path) -> Figure:
    """Accuracy of every row with its 95% interval; methods, references and controls are separate groups.

    Args:
        table: from `table.make_table`; of an older version it may lack "controls".
        path: where to save; see `plot.figure`.
    """
    groups, columns = _groups(table), table["columns"]
    rows = [row for group in groups.values() for row in group]
    ticks, titles = _places(groups, len(columns))
    height = max(ticks) + 0.25
    with plot.figure(path, height + 0.65) as figure:
        axes = figure.subplots()
        for row, place in zip(rows, (place for place in ticks if place not in titles), strict=True):
            for number, column in enumerate(columns):
                offset = 0.09 * (number - (len(columns) - 1) / 2)
                cell = row["columns"][column]
                _interval(axes, cell["accuracy"], cell["ci95"], place + offset, number)
        for number, column in enumerate(columns):
            axes.plot([], [], label=plot.label(column), **plot.look(number, "-"))
        axes.set_yticks([*ticks], [*ticks.values()])
        for position, text in zip(ticks, axes.get_yticklabels(), strict=True):
            text.set_fontweight("bold" if position in titles else "normal")
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(height, 0)
        axes.set_xlim(0, _upper(row["columns"][column]["ci95"][1] for row in rows for column in columns))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("accuracy (%), 95% intervals")
        if len(columns) > 1:
            figure.legend(loc="outside upper right", ncols=len(columns))
    return figure


def _places(groups: Mapping[str, Sequence[Mapping[str, Any]]], columns: int) -> tuple[dict[float, str], list[float]]:
    """Labels by position from the top in inches, and the positions that are titles of groups."""
    ticks: dict[float, str] = {}
    titles, place = [], 0.0
    for title, rows in groups.items():
        place += 0.1
        titles.append(place)
        ticks[place] = title
        place += 0.08
        for row in rows:
            label = plot.label(row["label"].removeprefix("Control: ").removesuffix(" (reference)"), 24)
            size = max(0.09 * columns + 0.08, 0.12 * (label.count("\n") + 1) + 0.04)
            ticks[place + size / 2] = label
            place += size
        place += 0.05
    return ticks, titles


def _groups(table: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    controls = table.get("controls", ())
    references = table["references"].items()
    groups = {
        "Methods": list(table["methods"].values()),
        "References": [row for name, row in references if name not in controls],
        "Controls": [row for name, row in references if name in controls],
    }
    return {title: rows for title, rows in groups.items() if rows}


def _interval(axes: Axes, share: float, bounds: Sequence[float], place: float, number: int) -> None:
    look = plot.look(number, "-")
    axes.plot([100 * bound for bound in bounds], [place, place], color=look["color"], clip_on=False)
    axes.plot(100 * share, place, clip_on=False, **look)


def _upper(shares: Iterable[float]) -> int:
    """The end of an axis from 0%, in steps of 10 points.

    >>> _upper([0.2, 0.418]), _upper([0.99])
    (50, 100)
    """
    return min(10 * math.ceil(10 * max(shares) + 0.1), 100)


def gain_by_subject(table: Mapping[str, Any], path: pathlib.Path) -> Figure | None:
    """Paired gain of every method over the first, by subject, 95% intervals and the number of problems.

    Subjects with few problems are left out; see `table.drawn_subjects`.

    Returns:
        The figure; None, and nothing is saved, if no subject or no second method is left.
    """
    names = list(table["methods"])
    if len(names) < 2 or not (subjects := drawn_subjects(table)):
        return None
    base, others, details = names[0], names[1:], table["subject_details"]
    legend_rows = (len(others) + 1) // 2
    with plot.figure(path, 0.65 + 0.16 * legend_rows + len(subjects) * (0.2 + 0.1 * len(others))) as figure:
        axes = figure.subplots()
        ticks, place = [], 0.0
        for subject in subjects:
            ticks.append(place + (len(others) - 1) / 2)
            for number, name in enumerate(others):
                gain = details[name][subject]
                _interval(axes, gain["gain"], gain["gain_ci95"], place, number)
                place += 1
            place += 1.5
        for number, name in enumerate(others):
            axes.plot([], [], label=table["methods"][name]["label"], **plot.look(number, "-"))
        axes.axvline(0, color=plot.GRAY, linewidth=0.8, zorder=0)
        axes.set_yticks(ticks, [f"{plot.label(s, 16)}\nn = {details[base][s]['problems']}" for s in subjects])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(place - 1, -1)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"gain over {table['methods'][base]['label']} (points), 95% intervals")
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def training_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    path: pathlib.Path,
    warmup: int,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Metrics over steps, faint, and their moving average; the gray band is the scorer's warm-up.

    The average runs over 4 steps to each side, fewer in runs of under 32 steps, and is clipped at both ends, so that it
    covers every step. The vertical range leaves out the most extreme percent of the values.

    Args:
        runs: training run -> one mapping per step; metrics may be absent, None or not finite.
        path: where to save; see `plot.figure`.
        warmup: steps in which only the scorer learns.
        labels: printed names of the runs; others are printed as they are.
    """
    last = max((row["step"] for rows in runs.values() for row in rows), default=0)
    legend_rows = (len(runs) + 2) // 2
    with plot.figure(path, 4.2 + 0.16 * legend_rows) as figure:
        grid = figure.subplots(3, 2, sharex=True)
        for axes, (metric, title, scale) in zip(grid.flat, CURVES, strict=True):
            drawn: list[float] = []
            for number, rows in enumerate(runs.values()):  # a run without this metric keeps its color
                points = [(row["step"], scale * row[metric]) for row in rows if _finite(row.get(metric))]
                if points:
                    steps, values = np.array(points, float).T
                    _curve(axes, steps, values, number)
                    drawn += [value for _, value in points]
            axes.set_ylabel(title)
            margin = max(0.5, 0.02 * last)
            axes.set_xlim(-margin, last + margin)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
            if warmup > 0:
                axes.axvspan(-margin, min(warmup, last + 1) - 0.5, color="#e8e8e8", linewidth=0, zorder=0)
            if drawn:
                axes.set_ylim(*_range(drawn))
            else:
                axes.set_yticks([])
                axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=plot.GRAY)
        for axes in grid[-1]:
            axes.set_xlabel("meta-training step")
        for number, name in enumerate(runs):
            grid[0, 0].plot([], [], label=(labels or {}).get(name, name), **plot.look(number))
        if warmup > 0:
            grid[0, 0].fill_between([], [], color="#e8e8e8", linewidth=0, label="scorer warm-up")
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _curve(axes: Axes, steps: np.ndarray, values: np.ndarray, number: int) -> None:
    """One metric of one run; every step has a marker in short runs, every sixth of the run otherwise."""
    look, spacing = plot.look(number), 1 if len(values) <= 16 else len(values) // 6
    smooth = moving_average(values, min(_SMOOTHING, len(values) // 8))
    axes.plot(steps, smooth, **look, markevery=spacing)
    axes.plot(steps, values, color=look["color"], alpha=0.25, linewidth=0.6, zorder=1)


def moving_average(values: np.ndarray, half: int) -> np.ndarray:
    """Mean over up to `half` neighbors on each side, as many as there are.

    >>> moving_average(np.array([0.0, 3.0, 6.0, 3.0]), 1)
    array([1.5, 3. , 4. , 4.5])
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    starts = np.maximum(np.arange(len(values)) - half, 0)
    ends = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[ends] - sums[starts]) / (ends - starts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [0.5, 99.5])
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin
