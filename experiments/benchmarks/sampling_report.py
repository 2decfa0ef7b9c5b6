"""Results of the sampling benchmark as JSON, Markdown and a figure."""

import json
import pathlib
import statistics
from typing import Any

from matplotlib.figure import Figure

from mass_jax import runtime
from mass_jax.render import plot

_SIDES = {
    "ours": "mass_jax",
    "torch": "transformers, peft",
    "shared adapter": "mass_jax, shared adapter",
    "own adapters": "mass_jax, own adapters",
}


def write(result: dict[str, Any], out: pathlib.Path) -> None:
    """Writes the JSON, the table and the figure."""
    save(result, out)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [f"Machine: {result['machine']}; {versions}.", ""]
    lines += ["| case | side | median, s | range, s | tokens/s |", "| --- | --- | ---: | ---: | ---: |"]
    for name, sides in result["seconds"].items():
        for side, values in sides.items():
            rate = _tokens(name, result) / statistics.median(values)
            spread = f"{min(values):.3f}-{max(values):.3f}"
            lines.append(f"| {name} | {side} | {statistics.median(values):.3f} | {spread} | {rate:.0f} |")
    lines += ["", "| case | ratio of medians | range |", "| --- | ---: | ---: |"]
    for name, ratio in result["ratios"].items():
        lines.append(f"| {name} | {ratio['median']:.2f} | {ratio['least']:.2f}-{ratio['most']:.2f} |")
    lines += _bandwidth(result)
    (out / "sampling.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(result, out / "sampling.png")


def _bandwidth(result: dict[str, Any]) -> list[str]:
    """Formats the rates of decoding next to their limit by the memory bandwidth."""
    limit = result["bandwidth"]["bytes_per_second"]
    kind = "measured by reading arrays" if result["bandwidth"]["measured"] else "as given"
    lines = ["", "| decoding with mass_jax | read per step, MB | tokens/s | limit, tokens/s | share |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, sides in result["bandwidth_shares"].items():
        for side, share in sides.items():
            rate = _tokens(name, result) / statistics.median(result["seconds"][name][side])
            label, part = name if side == "ours" else f"{name}, {side}", share["share"]
            megabytes = share["bytes_per_step"] / 1e6
            lines.append(f"| {label} | {megabytes:.0f} | {rate:.0f} | {rate / part:.0f} | {part:.0%} |")
    bandwidth = f"{limit / 1e9:.1f} GB/s"
    return [*lines, "", f"The limit is a memory bandwidth of {bandwidth}, {kind}; times include the prompts."]


def save(result: dict[str, Any], out: pathlib.Path) -> None:
    """Writes sampling.json."""
    out.mkdir(parents=True, exist_ok=True)
    runtime.write_atomically(out / "sampling.json", json.dumps(result, indent=2) + "\n")


def _tokens(name: str, result: dict[str, Any]) -> int:
    """Returns the tokens that a run of a case generates, or processes if it generates none."""
    if name in ("forward", "LoRA gradient"):
        return result["samples"] * result["prompt_tokens"]
    return result["new_tokens"] * (1 if name == "1 sample" else result["samples"])


def draw(result: dict[str, Any], path: pathlib.Path) -> Figure:
    """Plots the throughput of every case and side: median and range over the runs, on a logarithmic axis."""
    sides = list(dict.fromkeys(side for case in result["seconds"].values() for side in case))
    cases = list(result["seconds"])
    with plot.figure(path, 0.28 * len(cases) + 0.95) as figure:
        axes = figure.subplots()
        for number, side in enumerate(sides):
            look = plot.look(number, "-")
            axes.plot([], [], label=_SIDES.get(side, side), **look)
            for place, case in enumerate(cases):
                if values := result["seconds"][case].get(side):
                    here = [name for name in sides if name in result["seconds"][case]]
                    height = place + 0.3 * (here.index(side) - (len(here) - 1) / 2)
                    rates = [_tokens(case, result) / value for value in (min(values), max(values))]
                    axes.plot(rates, [height, height], color=look["color"])
                    axes.plot(_tokens(case, result) / statistics.median(values), height, **look)
        axes.set_yticks(range(len(cases)), cases)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(cases) - 0.4, -0.6)
        axes.set_xscale("log")
        plot.plain_log(axes.xaxis)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("throughput (tokens/s), median and range")
        figure.legend(loc="outside lower center", ncols=2)
    return figure
