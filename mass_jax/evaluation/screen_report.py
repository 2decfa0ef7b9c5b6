"""Report of a screen: screen.json, screen.md and a figure."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from mass_jax import runtime
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
    last = "s | correct - wrong answers" if content else "s"
    lines = [
        f"| family | {' | '.join(names)} | best gain over Base | {last} |",
        f"|---{'|---:' * (len(names) + 2 + content)}|",
    ]
    for family, result in sorted(families.items(), key=lambda item: -item[1]["best_gain"]):
        cells = result["cells"]
        shown = " | ".join(f"{100 * cells[name]['accuracy']:.0f}" if name in cells else "" for name in names)
        low, high = cells[result["best"]]["gain_ci95"]
        gain = f"{100 * result['best_gain']:+.0f} ({100 * low:+.0f} to {100 * high:+.0f}), {result['best']}"
        lines.append(f"| {family} | {shown} | {gain} | {result['seconds']:.0f} |{_content(result) if content else ''}")
    note = (
        f"Accuracy in percent on {settings['problems']} training problems per cell; right_K2_m6 adapts for 2 steps to "
        f"6 correct examples. Gains are paired; 95 % bootstrap intervals resample the {settings['groups']} groups that "
        f"share their examples, and the best cell is chosen on the same problems, which favors it."
    )
    if content:
        note += (
            " In the wrong cells, the same examples have each other's answers; in the other cells, correct examples "
            "come from the next family. What these gain is the form of the answers."
        )
    kept = ", ".join(summary["kept"]) or "none"
    return f"{note}\n\n" + "\n".join(lines) + f"\n\nFamilies with a gain of at least 15 points: {kept}.\n"


def _content(result: Mapping[str, Any]) -> str:
    """Returns the cell of the gain by correct answers over wrong ones; empty if it was not measured."""
    if "content" not in result:
        return " |"
    mean, low, high = result["content"]
    return f" {100 * mean:+.0f} ({100 * low:+.0f} to {100 * high:+.0f}) |"


def draw(summary: Mapping[str, Any], path: pathlib.Path) -> Figure:
    """Draws Base, few-shot and the best cell with correct examples by family, the largest gain on top.

    Args:
        summary: As for `write_report`.
        path: Where to save; see `plot.figure`.
    """
    families = sorted(summary["families"].items(), key=lambda item: -item[1]["best_gain"])
    with plot.figure(path, 0.9 + 0.2 * len(families)) as figure:
        axes = figure.subplots()
        for number, (label, cell) in enumerate((("Base", "base"), ("few-shot", "few_shot"), ("right examples", None))):
            values = [100 * result["cells"][cell or result["best"]]["accuracy"] for _, result in families]
            axes.plot(values, range(len(families)), label=label, **plot.look(number, ""))
        axes.set_yticks(range(len(families)), [plot.label(name, 30) for name, _ in families])
        axes.set_ylim(len(families) - 0.5, -0.5)
        axes.set_xlim(-3, 103)
        axes.set_xlabel("accuracy (%)")
        axes.grid(axis="x")
        figure.legend(loc="outside upper center", ncols=3)
    return figure
