"""Report of a screen: screen.json, screen.md and a figure.

Shape suffixes: C cells with correct examples, G groups, N problems.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mass_jax import runtime, stats
from mass_jax.render import plot


def write_report(summary: Mapping[str, Any], directory: pathlib.Path) -> None:
    """Writes screen.json, screen.md and screen.png/.svg.

    Args:
        summary: {"settings", "kept", "families"}; see `screen.screen`.
        directory: Where to write.
    """
    directory.mkdir(parents=True, exist_ok=True)
    runtime.write_atomically(directory / "screen.json", json.dumps(summary, indent=1) + "\n")
    runtime.write_atomically(directory / "screen.md", markdown(summary))
    draw(summary, directory / "screen.png")


def markdown(summary: Mapping[str, Any]) -> str:
    """Returns the table: accuracy in percent by family and cell, and the gain of the best cell with its interval."""
    families, settings = summary["families"], summary["settings"]
    names = list(dict.fromkeys(name for result in families.values() for name in result["cells"]))
    content = any("content" in result for result in families.values())
    chosen = sum(name.startswith("right_") for name in names) > 1  # otherwise no cell was chosen
    titles = ["family", *names, "best gain over Base", *["held-out gain"] * chosen, "s"]
    titles += ["correct - wrong answers"] * content
    lines = [f"| {' | '.join(titles)} |", f"|---{'|---:' * (len(titles) - 1)}|"]
    for family, result in sorted(families.items(), key=lambda item: -item[1]["best_gain"]):
        cells = result["cells"]
        shown = " | ".join(f"{100 * cells[name]['accuracy']:.0f}" if name in cells else "" for name in names)
        low, high = cells[result["best"]]["gain_ci95"]
        gain = f"{100 * result['best_gain']:+.0f} ({100 * low:+.0f} to {100 * high:+.0f}), {result['best']}"
        if chosen:
            mean, low, high = held_out_gain(cells, settings["groups"])
            gain += f" | {100 * mean:+.0f} ({100 * low:+.0f} to {100 * high:+.0f})"
        lines.append(f"| {family} | {shown} | {gain} | {result['seconds']:.0f} |{_content(result) if content else ''}")
    note = (
        f"Accuracy in percent on {settings['problems']} training problems per cell; right_K2_m6 adapts for 2 steps to "
        f"6 correct examples. Gains are paired; 95 % bootstrap intervals resample the {settings['groups']} groups that "
        f"share their examples."
    )
    if chosen:
        note += (
            " The best cell is chosen on the same problems, which favors it. For the held-out gain it is chosen anew "
            "for each group, on the other groups only; its interval is rough, because these choices depend on each "
            "other."
        )
    if content:
        note += (
            " In the wrong cells, the same examples have each other's answers, so that what they gain is the form of "
            "the answers; in the other cells, correct examples come from another family."
        )
    kept = ", ".join(summary["kept"]) or "none"
    return f"{note}\n\n" + "\n".join(lines) + f"\n\nFamilies with a gain of at least 15 points: {kept}.\n"


def held_out_gain(cells: Mapping[str, Mapping[str, Any]], groups: int) -> stats.Estimate:
    """Estimates the gain over Base of choosing a cell with correct examples, without the bias of the choice.

    The gain of a group is that of the cell whose mean gain over all other groups is largest.

    Args:
        cells: Result of a family by cell; "right" holds 1 for each correct answer, in order of the groups.
        groups: Number of groups, which have the same number of problems.

    Returns:
        The mean over groups, and an interval that resamples groups. It is rough: the choice for a group depends on the
        other groups, which resampling them does not repeat.

    >>> cells = {"base": [0, 0, 0, 0], "right_K2_m6": [1, 1, 0, 0], "right_K4_m6": [0, 0, 1, 1]}
    >>> held_out_gain({name: {"right": right} for name, right in cells.items()}, groups=2).mean
    0.0
    """
    base_N = np.array(cells["base"]["right"])
    gains = [np.array(cell["right"]) - base_N for name, cell in cells.items() if name.startswith("right_")]
    gains_CG = np.stack(gains).reshape(len(gains), groups, -1).mean(-1)
    others_CG = gains_CG.sum(-1, keepdims=True) - gains_CG
    held_out_G = gains_CG[others_CG.argmax(0), np.arange(groups)]
    return stats.clustered_mean(held_out_G.tolist(), [str(group) for group in range(groups)])


def _content(result: Mapping[str, Any]) -> str:
    """Returns the cell of the gain by correct answers over wrong ones; empty if it was not measured."""
    if "content" not in result:
        return " |"
    mean, low, high = result["content"]
    return f" {100 * mean:+.0f} ({100 * low:+.0f} to {100 * high:+.0f}) |"


def draw(summary: Mapping[str, Any], path: pathlib.Path) -> Figure:
    """Draws Base, few-shot, the best cell with correct examples and Solver GRPO by family, the largest gain on top.

    Families without a cell have no point.

    Args:
        summary: As for `write_report`.
        path: Where to save; see `plot.figure`.
    """
    families = sorted(summary["families"].items(), key=lambda item: -item[1]["best_gain"])
    rows = [("Base", "base"), ("few-shot", "few_shot"), ("correct examples", None)]
    if any("solver_grpo" in result["cells"] for _, result in families):
        rows.append(("Solver GRPO", "solver_grpo"))
    with plot.figure(path, 0.9 + 0.2 * (len(families) + len(rows) - 3)) as figure:
        axes = figure.subplots()
        for number, (label, cell) in enumerate(rows):
            cells = [result["cells"].get(cell or result["best"]) for _, result in families]
            values = [100 * found["accuracy"] if found else math.nan for found in cells]
            axes.plot(values, range(len(families)), label=label, **plot.look(number, ""))
        axes.set_yticks(range(len(families)), [plot.label(name, 30) for name, _ in families])
        axes.set_ylim(len(families) - 0.5, -0.5)
        axes.set_xlim(-3, 103)
        axes.set_xlabel("accuracy (%)")
        axes.grid(axis="x")
        figure.legend(loc="outside upper center", ncols=3 if len(rows) == 3 else 2)
    return figure
