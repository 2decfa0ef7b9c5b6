"""Results of `experiments.bench_metagrad` as Markdown, CSV and a figure."""

import csv
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from matplotlib.figure import Figure

from mass_jax.render import plot
from mass_jax.render.markdown import cell

_ORDER = ("adjoint", "policy", "optimizer", "model", "K", "m", "tokens", "tasks", "dtype")
_MEASURED = ("temp_bytes", "peak_bytes", "seconds", "compile_seconds", "rel_error")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Formats the rows as a Markdown table; a column of peak memory appears once one is measured."""
    peaks = any(row.get("peak_bytes") is not None for row in rows)
    names = ["adjoint", "policy", "optimizer", "K", "m", "tokens", "temporaries, MiB"]
    names += ["peak, MiB"] if peaks else []
    names += ["seconds", "compile, s", "relative error"]
    lines = ["| " + " | ".join(names) + " |", "|---|---|---|" + "---:|" * (len(names) - 3)]
    for row in rows:
        cells = [row["adjoint"], row["policy"], cell(row["optimizer"]), row["K"], row["m"], row["tokens"]]
        cells += [_mebibytes(row["temp_bytes"])]
        cells += [_mebibytes(row.get("peak_bytes"))] if peaks else []
        cells += [_number(row["seconds"], ".2f"), _number(row["compile_seconds"], ".1f")]
        cells += [_number(row["rel_error"], ".1e")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def page(header: dict[str, Any], rows: Sequence[dict[str, Any]], not_measured: Sequence[str] = ()) -> str:
    """Formats the results as Markdown: machine, table, and the cases that were not measured."""
    heading = f"Machine: {header['machine']}; jax {header['jax']}; preset `{header['preset']}`"
    given = {name: ",".join(v) if isinstance(v, list) else v for name, v in header.get("flags", {}).items()}
    own = " ".join(f"--{name}={value}" for name, value in given.items())
    text = f"{heading}{f' with `{own}`' if own else ''}.\n\n{table(rows)}"
    if not_measured:
        text += "\nNot measured:\n\n" + "\n".join(f"- {line}" for line in not_measured) + "\n"
    return text


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Formats the rows as CSV, with the repetitions in one column, separated by spaces."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_ORDER, *_MEASURED, "times"])
    for row in rows:
        values = [row.get(name) for name in (*_ORDER, *_MEASURED)]
        writer.writerow([*values, " ".join(map(str, row.get("times", ())))])
    return text.getvalue()


def _mebibytes(value: float | None) -> str:
    return "" if value is None else f"{value / 2**20:.1f}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def figure(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> Figure:
    """Plots temporary memory against time of the timed rows with the first optimizer, one point per policy.

    Both axes are logarithmic.
    """
    chosen = [row for row in rows if row["seconds"] and row["temp_bytes"]]
    chosen = [row for row in chosen if row["optimizer"] == chosen[0]["optimizer"]]
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


def processor() -> str:
    """Returns the model name of the processor on Linux; empty elsewhere."""
    file = pathlib.Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
