"""Table and figure of measured estimators of the meta-gradient."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from mass_jax.metagrad.signal import Interval
from mass_jax.render import plot
from mass_jax.training.estimators import EXACT, EstimatorRow

MIB = 2**20
COLUMNS = {  # number of the row -> column heading
    "cosine": "cosine",
    "pearson": "Pearson",
    "norm_ratio": "norm",
    "leave_one_out": "leave-one-out",
    "difference": "minus exact",
    "reward_auc": "AUC",
}
LEGEND = (
    "Seconds for the meta-gradients of all problems, the same in units of the exact meta-gradient (medians over the "
    "repetitions), and temporaries of the compiled program. Agreement with the exact meta-gradient of a problem: "
    "cosine, Pearson correlation over its examples, and ratio of the norms. Leave-one-out: Spearman correlation of the "
    "reward with the effect of leaving the example out, and the same minus that of the exact meta-gradient, paired by "
    "problem. AUC of the reward for useful examples of the same problem. Means over problems with 95 % bootstrap "
    "intervals over problems in parentheses."
)

Results = Mapping[str, Mapping[str, EstimatorRow]]
"""Rows by the label of the inner optimizer and the name of the estimator."""


def tables(header: Mapping[str, Any], results: Results) -> str:
    """Formats results as Markdown, one table per inner optimizer.

    Args:
        header: description of the measurement: model, task, problems, examples, score, seed, repeats, device,
            estimators.
        results: the rows.
    """
    lines = [
        f"{header['model']}, {header['task']}, pretrained generator. {header['problems']} training problems with "
        f"{header['examples']} examples each, outer loss of gold solutions, score {header['score']:g}, seed "
        f"{header['seed']}, {header['repeats']} repetitions on {header['device']}.",
        "",
        LEGEND,
    ]
    for setting, rows in results.items():
        shown = {name: title for name, title in COLUMNS.items() if any(name in row.numbers for row in rows.values())}
        lines += [
            "",
            f"**{setting}**",
            "",
            "| estimator | seconds | x exact | MiB | " + " | ".join(shown.values()) + " | not finite |",
            "|---|" + "---:|" * (len(shown) + 4),
        ]
        for name, row in rows.items():
            cells = [_cell(row.numbers.get(column)) for column in shown]
            costs = [f"{row.seconds:.3g}", f"{row.times_exact:.2f}", f"{row.temp_bytes / MIB:.1f}"]
            lines.append("| " + " | ".join([name, *costs, *cells, str(row.not_finite)]) + " |")
    return "\n".join(lines) + "\n"


def figure(header: Mapping[str, Any], results: Results, path: pathlib.Path) -> Figure:
    """Plots the correlation with leave-one-out against time, one panel per inner optimizer.

    Args:
        header: description of the measurement.
        results: the rows.
        path: where to save, as PNG and SVG.
    """
    names = [EXACT, *(text.strip() for text in header["estimators"])]  # the same look in every panel
    count = max(len(results), 1)
    with plot.figure(path, 1.6 * count + 1) as drawn:
        panels = drawn.subplots(count, 1, squeeze=False)[:, 0]
        for axes, (setting, rows) in zip(panels, results.items(), strict=False):
            for name, row in rows.items():
                _point(axes, row, names.index(name))
            if EXACT in rows:
                axes.axhline(rows[EXACT].numbers["leave_one_out"].value, color=plot.GRAY, linewidth=0.6)
            axes.set_xscale("log")
            plot.plain_log(axes.xaxis)
            axes.set_title(plot.label(setting, 40))
            axes.set_ylabel("leave-one-out\n(rank correlation)")
            axes.grid(True)
        panels[-1].set_xlabel("time (multiples of exact)")
        handles = [panels[0].plot([], [], label=name, **plot.look(i, ""))[0] for i, name in enumerate(names)]
        drawn.legend(handles=handles, loc="outside lower center", ncols=3)
        drawn.suptitle(plot.label(f"{header['task']}, {header['problems']} problems", 44))
    return drawn


def _point(axes: Any, row: EstimatorRow, number: int) -> None:
    """Draws one estimator with the interval of its correlation; nothing if the correlation does not exist."""
    found = row.numbers["leave_one_out"]
    if math.isfinite(found.value):
        errors = ([max(found.value - found.low, 0)], [max(found.high - found.value, 0)])
        axes.errorbar(
            [row.times_exact], [found.value], yerr=errors, elinewidth=0.8, markersize=4, **plot.look(number, "")
        )


def _cell(interval: Interval | None) -> str:
    """Formats a number with its interval; empty if it was not measured."""
    if interval is None:
        return ""
    if not math.isfinite(interval.value):
        return "none"
    value, low, high = (f"{each:.2f}".replace("-0.00", "0.00") for each in interval[:3])
    return f"{value} ({low}, {high})"
