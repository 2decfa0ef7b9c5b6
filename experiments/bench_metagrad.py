"""Benchmarks memory, time and exactness of meta-gradients: every adjoint and policy, and peers, on one problem.

    python -m experiments.bench_metagrad --preset=cpu --out=DIR

writes metagrad.json, metagrad.md, metagrad.png and metagrad.svg to DIR. Rerun the same command to resume: finished
measurements are kept. Runs are interleaved (every case once, then every case again), because machines are rarely idle,
and medians are reported.
Presets: `cpu` (8 layers, about 20 minutes on 2 cores, 5 GiB), `gpu` and `tpu` (a 1B-parameter shape in bfloat16),
`tiny` (a check that everything runs; minutes, mostly compilation), `wall` (compiles a published out-of-memory case, all
124M parameters, T=16 and T=32 steps, and runs nothing). PyTorch peers run on CPU presets if they are installed.
"""

import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import app, flags
from matplotlib.figure import Figure

from experiments.benchmarks import metagrad as bench
from mass_jax.render import plot


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| adjoint | policy | optimizer | K | m | tokens | temporaries, MiB | seconds | compile, s | relative error |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [row["adjoint"], row["policy"], row["optimizer"], row["K"], row["m"], row["tokens"]]
        temp = row["temp_bytes"]
        cells += ["" if temp is None else f"{temp / 2**20:.1f}", _number(row["seconds"], ".2f")]
        cells += [_number(row["compile_seconds"], ".1f"), _number(row["rel_error"], ".1e")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def figure(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> Figure:
    """Temporary memory against time on logarithmic axes, one point per policy: the timed SGD rows."""
    chosen = [row for row in rows if row["seconds"] and row["temp_bytes"] and row["optimizer"] == "sgd"]
    families = list(dict.fromkeys(row["adjoint"].split("(")[0] for row in chosen))
    with plot.figure(path, 2.5 + 0.16 * ((len(families) + 1) // 2)) as figure:
        axes = figure.subplots()
        for number, family in enumerate(families):
            points = [row for row in chosen if row["adjoint"].split("(")[0] == family]
            axes.plot([row["seconds"] for row in points], [row["temp_bytes"] / 2**20 for row in points],
                      label=family, alpha=0.85, markersize=5, **plot.look(number, ""))  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="median time (s)", ylabel="temporary memory (MiB)")
        plot.plain_log(axes.xaxis)
        plot.plain_log(axes.yaxis)
        axes.grid(which="major")
        if chosen:
            title = f"{chosen[0]['model']}\nm = {chosen[0]['m']} examples, K = {chosen[0]['K']} inner steps"
            figure.suptitle(title, fontsize=7)
            figure.legend(loc="outside lower center", ncols=2)
    return figure


def machine() -> str:
    """Number and kind of the devices, or of the CPU cores."""
    kind = jax.devices()[0].device_kind
    return f"{os.cpu_count()} CPU cores" if kind == "cpu" else f"{jax.device_count()} x {kind}"


def run(preset: str, out: pathlib.Path, machine: str) -> None:
    """Measures a preset; writes the JSON after every measurement, and the table and the figure at the end."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "metagrad.json"
    header = {"machine": machine, "jax": jax.__version__, "preset": preset}
    done: list[dict[str, Any]] = []
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        done = found.pop("rows")
        if found != header:
            raise ValueError(f"{path} was measured with {found}, not {header}; give another --out")

    def save(rows: list[dict[str, Any]]) -> None:
        path.write_text(json.dumps(header | {"rows": rows}, indent=1) + "\n", encoding="utf-8")

    if preset == "wall":
        save([bench.compile_case(case, size, "float32")[1] for size, case in bench.WALL_CASES])
    else:
        bench.measure(bench.PRESETS[preset], done, save)
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    heading = f"Machine: {machine}; jax {jax.__version__}; preset `{preset}`.\n\n"
    (out / "metagrad.md").write_text(heading + table(rows), encoding="utf-8")
    if preset != "wall":
        figure(rows, out / "metagrad.png")
    print(table(rows))


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    try:
        if flags.FLAGS.out is None:
            raise ValueError("--out is missing: give a directory, like --out=runs/bench_metagrad")
        run(flags.FLAGS.preset, pathlib.Path(flags.FLAGS.out), flags.FLAGS.machine or machine())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


# Defined only when run as a script: commands share flag names, and tests import several of them.
if __name__ == "__main__":
    flags.DEFINE_enum("preset", "cpu", sorted([*bench.PRESETS, "wall"]), "Shapes and policies to measure.")
    flags.DEFINE_string("out", None, "Directory for the results; pass it again to resume.")
    flags.DEFINE_string("machine", "", "Name of this machine in the results; by default what JAX reports.")
    app.run(main)
