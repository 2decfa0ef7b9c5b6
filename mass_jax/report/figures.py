"""Figures: accuracy by method, gain by subject (the paper's Figure 2), training curves."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.use("Agg")
GREY, STRONG = "#9aa5b1", "#c2410c"
CURVES = (
    ("outer_loss", "outer loss (nats a token)"),
    ("reward", "mean reward −dL/ds"),
    ("useful_share", "share of useful examples"),
    ("scorer_auc", "AUC of scores for useful examples"),
    ("reward_auc", "AUC of rewards for useful examples"),
    ("right_rate", "share of right attempts"),
)


def accuracy(table: Mapping[str, Any], path: pathlib.Path) -> None:
    """One bar a method and column with its 95 % interval; references and controls are hollow."""
    rows = [*table["methods"].values(), *table["references"].values()]
    columns, count = table["columns"], len(table["methods"])
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(rows) * len(columns) ** 0.5 + 1.2), layout="constrained")
    height = 0.8 / len(columns)
    for j, column in enumerate(columns):
        cells = [row["columns"][column] for row in rows]
        means = np.array([100 * cell["accuracy"] for cell in cells])
        bounds = np.array([[100 * bound for bound in cell["ci95"]] for cell in cells]).T
        errors = np.abs(bounds - means)
        places = np.arange(len(rows)) + (j - (len(columns) - 1) / 2) * height
        colours = [STRONG if j == 0 else GREY] * count + ["white"] * (len(rows) - count)
        edge = STRONG if j == 0 else GREY
        axes.barh(
            places, means, height * 0.9, xerr=errors, color=colours, edgecolor=edge, ecolor="#374151", label=column
        )
    axes.set_yticks(np.arange(len(rows)), [row["label"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy (%), 95 % interval clustered; hollow: references and controls")
    figure.legend(loc="outside upper right", ncols=len(columns))
    _save(figure, path)


def gain_by_subject(table: Mapping[str, Any], path: pathlib.Path) -> None:
    """Gain over the first method, subject by subject."""
    names = list(table["methods"])
    base = table["subjects"][names[0]]
    subjects = sorted(base, key=lambda subject: -base[subject])
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    width = 0.8 / max(len(names) - 1, 1)
    shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, max(len(names) - 1, 1)))
    for j, name in enumerate(names[1:]):
        gains = [100 * (table["subjects"][name][subject] - base[subject]) for subject in subjects]
        places = np.arange(len(subjects)) + (j - (len(names) - 2) / 2) * width
        axes.bar(places, gains, width * 0.9, color=shades[j], label=table["methods"][name]["label"])
    axes.axhline(0, color="#374151", linewidth=0.8)
    plain = [subject.replace("$", r"\$") for subject in subjects]  # a data set's own name, not a formula
    wrapped = [textwrap.fill(subject, 14, break_long_words=False) for subject in plain]
    labels = [f"{name}\n(base {100 * base[subject]:.0f} %)" for name, subject in zip(wrapped, subjects, strict=True)]
    axes.set_xticks(np.arange(len(subjects)), labels)
    axes.set_ylabel(f"gain over {table['methods'][names[0]]['label']} (points)")
    axes.set_title(f"Gain by subject ({table['columns'][0]})")
    figure.legend(loc="outside lower center", ncols=4)
    _save(figure, path)


def training_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: pathlib.Path, warmup: int) -> None:
    """Metrics of the runs over steps, smoothed over 9 steps; the grey band is the scorer's warm-up.

    The vertical range leaves out the most extreme percent of the values.
    """
    figure, grid = plt.subplots(2, 3, figsize=(11, 6), layout="constrained", sharex=True)
    for axes, (metric, label) in zip(grid.flat, CURVES, strict=True):
        shown: list[float] = []
        for number, (name, rows) in enumerate(runs.items()):
            points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
            if points:
                steps, values = np.array(points, float).T
                _curve(axes, steps, values, name, f"C{number}")  # a run without this metric must not shift colours
                shown += [*values]
        if shown:
            low, high = np.percentile(shown, [0.5, 99.5])
            margin = 0.05 * (high - low) or 1.0
            axes.set_ylim(low - margin, high + margin)
        else:
            axes.set_yticks([])
            axes.text(0.5, 0.5, "no step has a value", transform=axes.transAxes, ha="center")
        axes.axvspan(0, warmup, color="#e5e7eb", zorder=0)
        axes.set_title(label, fontsize="medium")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    figure.suptitle("Training, first seed")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    _save(figure, path)


def _curve(axes: Axes, steps: np.ndarray, values: np.ndarray, label: str, colour: str) -> None:
    width = min(9, len(values))
    smooth = np.convolve(values, np.ones(width) / width, mode="valid")
    axes.plot(steps[width - 1 :], smooth, color=colour, label=label)
    axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.7)


def _save(figure: Figure, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
