"""Table and figure of measured settings of the inner loop."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mass_jax import metagrad as mg
from mass_jax.metagrad.signal import Interval
from mass_jax.render import plot

COLUMNS = {  # number of the report -> column heading
    "leave_one_out/spearman": "leave-one-out",
    "add_one/spearman": "add-one",
    "finite_difference/spearman": "finite differences",
    "leave_one_out/sign": "signs",
    "zero_sum_index": "zero-sum index",
    "metasmoothness": "metasmoothness",
    "cosine_float64": "cos float64",
    "cosine_bfloat16": "cos bf16",
    "signal_share": "signal",
    "reward_auc": "AUC",
    "gain": "gain",
}
LEGEND = (
    "Spearman correlation of the reward with leave-one-out, add-one and finite differences (mean over problems), share "
    "of examples whose reward has the sign of the leave-one-out effect, zero-sum index, metasmoothness, cosine of the "
    "rewards with those in float64 and with a bfloat16 base model, share of problems with signal, AUC of the reward "
    "for useful examples of the same problem, and outer loss before minus after adaptation (nats per token). 95 % "
    "bootstrap intervals over problems in parentheses, with the number n of problems that have a value if not all do; "
    "columns that were not measured are left out."
)


def table(header: Mapping[str, Any], reports: Mapping[str, mg.SignalReport]) -> str:
    """Formats reports as Markdown, one row per setting, with the findings in the last column.

    Args:
        header: description of the measurement: model, task, generator, problems, examples, outer, score, seed.
        reports: reports by label of the setting.
    """
    shown = {name: title for name, title in COLUMNS.items() if any(name in r.numbers for r in reports.values())}
    lines = [
        f"{header['model']}, {header['task']}, generator: {header['generator']}. {header['problems']} training "
        f"problems with {header['examples']} examples each, outer loss: {header['outer']}, score "
        f"{header['score']:g}, seed {header['seed']}{reward_of(header)}.",
        "",
        LEGEND,
        "",
        "| setting | " + " | ".join(shown.values()) + " | findings |",
        "|---|" + "---:|" * len(shown) + "---|",
    ]
    for label, report in reports.items():
        cells = [_cell(report.numbers.get(name), report.tasks) for name in shown]
        found = ", ".join(finding.name for finding in mg.findings(report)) or "none"
        lines.append("| " + " | ".join([label, *cells, found]) + " |")
    return "\n".join(lines) + "\n"


def reward_of(header: Mapping[str, Any]) -> str:
    """Returns the reward of a measurement if it is not the paper's, to append to its description.

    >>> reward_of({"config": {"reward": "path"}})
    ', --reward=path'
    """
    reward = header.get("config", {}).get("reward", "marginal")
    return "" if reward == "marginal" else f", --reward={reward}"


def figure(header: Mapping[str, Any], reports: Mapping[str, mg.SignalReport], path: pathlib.Path) -> Figure:
    """Plots correlations and the zero-sum index of every setting with their intervals.

    Args:
        header: description of the measurement.
        reports: reports by label of the setting.
        path: where to save, as PNG and SVG.
    """
    series = ("leave_one_out/spearman", "add_one/spearman", "zero_sum_index")
    with plot.figure(path, 0.28 * len(reports) + 1.5) as figure:
        axes = figure.subplots()
        for number, name in enumerate(series):
            drawn = [(row, r.numbers[name]) for row, r in enumerate(reports.values()) if name in r.numbers]
            drawn = [(row, interval) for row, interval in drawn if math.isfinite(interval.value)]
            if drawn:
                _points(axes, drawn, number, len(series), COLUMNS[name])
        axes.axvline(0, color=plot.GRAY, linewidth=0.6)
        axes.set_yticks(range(len(reports)), [plot.label(label, 28) for label in reports])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.set_xlabel("rank correlation or index")
        figure.suptitle(
            plot.label(f"{header['task']}, {header['problems']} problems, outer loss: {header['outer']}", 44)
        )
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _points(axes: Any, drawn: Sequence[tuple[int, Interval]], number: int, count: int, title: str) -> None:
    """Draws one number of every setting with its interval, slightly below the earlier series."""
    places = [row + 0.22 * (number - (count - 1) / 2) for row, _ in drawn]
    values = [interval.value for _, interval in drawn]
    below = [max(interval.value - interval.low, 0) for _, interval in drawn]
    above = [max(interval.high - interval.value, 0) for _, interval in drawn]
    style = plot.look(number, "")
    axes.errorbar(values, places, xerr=(below, above), label=title, elinewidth=0.8, markersize=3.5, **style)


def _cell(interval: Interval | None, problems: int) -> str:
    """Formats a number with its interval and the number of problems that have it; empty if it was not measured."""
    if interval is None:
        return ""
    if not math.isfinite(interval.value):
        return "none"
    digits = 3 if abs(interval.value) < 0.095 else 2
    counted = "" if interval.tasks == problems else f"; n = {interval.tasks}"
    return f"{interval.value:.{digits}f} ({interval.low:.{digits}f}, {interval.high:.{digits}f}{counted})"
