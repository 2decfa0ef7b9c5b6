"""Results of the benchmark of long inner loops as JSON, Markdown and a figure."""

import json
import pathlib
import statistics
from typing import Any

from matplotlib.figure import Figure

from mass_jax import runtime
from mass_jax.render import plot

_MIB = 2**20
NAMES = {
    "device": "device, states and gradients",
    "step": "device, states only",
    "recursive": "device, about √K states",
    "replay": "device, about √K states, gradients",
    "host": "host, states and gradients",
    "disk": "disk, states and gradients",
    "host_step": "host, states only",
    "disk_step": "disk, states only",
    "reverse": "reverse mode, device, states only",
}


def write(result: dict[str, Any], out: pathlib.Path) -> None:
    """Writes the JSON, the table and the figure."""
    runtime.write_atomically(out / "long_loops.json", json.dumps(result, indent=1) + "\n")
    runtime.write_atomically(out / "long_loops.md", table(result))
    draw(result, out / "long_loops.png")
    print(table(result))


def table(result: dict[str, Any]) -> str:
    """Returns the results in Markdown: temporaries for each K, then time and difference at the longest loop."""
    size, steps_K = result["case"]["size"], sorted({row["K"] for row in result["rows"]})
    stores = list(dict.fromkeys(row["store"] for row in result["rows"]))
    cells = {(row["store"], row["K"]): row for row in result["rows"]}
    micro_batch = result["case"]["micro_batch"] or size["examples"]
    lines = [
        f"Machine: {result['machine']}; jax {result['jax']}. Llama {size['layers']}x{size['width']}, vocabulary "
        f"{size['vocab']}, all parameters, AdamW, {size['examples']} x {size['tokens']} tokens per step in "
        f"micro-batches of {micro_batch}. A state (parameters and moments) has {result['state_bytes'] / _MIB:.1f} MiB.",
        "",
        "Temporaries in MiB, as compiled for this device:",
        "",
        "| trajectory | " + " | ".join(f"K = {steps}" for steps in steps_K) + " | compile, s |",
        "|---|" + "---:|" * (len(steps_K) + 1),
    ]
    for store in stores:
        row = [f"{cells[store, steps]['temp_bytes'] / _MIB:,.1f}" for steps in steps_K]
        lines.append(f"| {NAMES[store]} | {' | '.join(row)} | {cells[store, steps_K[-1]]['compile_seconds']:.0f} |")
    if "times" in result:
        lines += ["", f"K = {result['inner_steps']}, {len(result['times'][stores[0]])} interleaved runs:", ""]
        lines += ["| trajectory | median, s | range, s | difference |", "|---|---:|---:|---:|"]
        for store in stores:
            values = result["times"][store]
            spread = f"{min(values):.2f} to {max(values):.2f}"
            difference = f"{result['difference'][store]:.1e}" if store != stores[0] else "0"
            lines.append(f"| {NAMES[store]} | {statistics.median(values):.2f} | {spread} | {difference} |")
        lines += ["", "The difference is that of the meta-gradient to the first row's, relative, in float32."]
    return "\n".join(lines) + "\n"


def draw(result: dict[str, Any], path: pathlib.Path) -> Figure:
    """Plots temporaries over the number of inner steps, on logarithmic axes."""
    stores = list(dict.fromkeys(row["store"] for row in result["rows"]))
    with plot.figure(path, 2.9) as figure:
        axes = figure.subplots()
        for number, store in enumerate(stores):
            rows = sorted((row for row in result["rows"] if row["store"] == store), key=lambda row: row["K"])
            temporaries = [row["temp_bytes"] / _MIB for row in rows]
            axes.plot([row["K"] for row in rows], temporaries, label=NAMES[store], **plot.look(number))
        axes.set_xscale("log")
        axes.set_yscale("log")
        plot.plain_log(axes.xaxis)
        plot.plain_log(axes.yaxis)
        axes.set_xlabel("inner steps K")
        axes.set_ylabel("temporaries (MiB)")
        figure.legend(loc="outside lower center", ncols=1)
    return figure
