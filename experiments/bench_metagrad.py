"""Benchmarks memory, time and accuracy of meta-gradients: every adjoint and policy, and peers, on one problem.

    python -m experiments.bench_metagrad --preset=cpu --out=DIR

Writes metagrad.json, metagrad.md, metagrad.png and metagrad.svg to DIR. Rerun the same command to resume: finished
measurements are kept. Runs are interleaved (every case once, then every case again), since machines are rarely idle,
and medians are reported.
Presets: `cpu` (8 layers, about 20 minutes on 2 cores, 5 GiB), `gpu` and `tpu` (a 1B-parameter shape in bfloat16),
`tiny` (checks that everything runs; minutes, mostly compilation), `wall` (compiles a published out-of-memory case, all
124M parameters, T=16 and T=32 steps, and runs nothing). PyTorch peers run on CPU presets if they are installed.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags
from matplotlib.figure import Figure

from experiments import settings
from experiments.benchmarks import metagrad as bench
from experiments.benchmarks.rows import Rows
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.render import plot

FLAGS = flags.FLAGS


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Formats the rows as a Markdown table."""
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
    """Plots temporary memory against time of the timed SGD rows, on logarithmic axes, one point per policy."""
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
    """Describes the machine: number and kind of its devices, or number of its CPU cores."""
    kind = jax.devices()[0].device_kind
    return f"{os.cpu_count()} CPU cores" if kind == "cpu" else f"{jax.device_count()} x {kind}"


def run(preset: str, out: pathlib.Path, machine: str, stop: runtime.Stop | None = None) -> None:
    """Measures a preset and writes metagrad.json after every measurement, the table and the figure at the end.

    Args:
        preset: name in `bench.PRESETS`, or "wall".
        out: directory of the results; finished measurements are not repeated.
        machine: name of the machine in the results.
        stop: polled after every measurement.

    Raises:
        ValueError: If `out` contains measurements of another machine, version or preset, or a damaged file.
    """
    path = out / "metagrad.json"
    header = {"machine": machine, "jax": jax.__version__, "preset": preset}
    rows = Rows(
        read_rows(path, header),
        lambda rows: runtime.write_atomically(path, json.dumps(header | {"rows": rows}, indent=1) + "\n"),
        stop or runtime.Stop(),
    )
    if preset == "wall":
        bench.measure_wall(rows)
    else:
        bench.measure(bench.PRESETS[preset], rows)
    finished = read_rows(path, header)
    heading = f"Machine: {machine}; jax {jax.__version__}; preset `{preset}`.\n\n"
    runtime.write_atomically(out / "metagrad.md", heading + table(finished))
    if preset != "wall":
        figure(finished, out / "metagrad.png")
    print(table(finished))


def read_rows(path: pathlib.Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of an earlier run of the same measurement.

    Raises:
        ValueError: If the file belongs to another measurement or is damaged.
    """
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = found.pop("rows")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged; remove it, or give another --out") from None
    if found != header:
        raise ValueError(f"{path} was measured with {found}, not {header}; give another --out")
    return rows


def main(_: Sequence[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def command(stop: runtime.Stop) -> None:
    """Checks the flags and runs the benchmark."""
    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory, like --out=runs/bench_metagrad")
    try:
        run(FLAGS.preset, pathlib.Path(FLAGS.out), FLAGS.machine or machine(), stop)
    except ValueError as error:
        raise UserError(str(error)) from error


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    flags.DEFINE_enum("preset", "cpu", sorted([*bench.PRESETS, "wall"]), "Named shapes and policies to measure.")
    DEFINE_path("out", None, "Directory for the results; rerun with the same directory to resume.")
    flags.DEFINE_string("machine", "", "Name of this machine in the results; empty uses its devices or cores.")


if __name__ == "__main__":
    define()
    settings.run(main)
