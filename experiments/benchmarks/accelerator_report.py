"""Results of the accelerator benchmark as JSON and Markdown."""

import json
import pathlib
from typing import Any

from experiments.benchmarks.accelerator_run import NOT_REACHED
from mass_jax import runtime
from mass_jax.render.markdown import cell
from mass_jax.runtime import jsonl

LINES, JSON, MARKDOWN = "accelerator.jsonl", "accelerator.json", "accelerator.md"
_GIB = 2**30
_MOST_OPERATIONS = 15  # in the Markdown; the JSON has more
_FIGURES = {
    "tflops": ("{:.0f} TFLOP/s", 1.0),
    "share_of_peak": ("{:.1f} % of the peak", 100.0),
    "gigabytes_per_second": ("{:.0f} GB/s", 1.0),
    "ratio_to_first_order": ("{:.2f} x first order", 1.0),
    "tokens_per_second": ("{:.0f} tokens/s", 1.0),
    "step_seconds": ("{:.2f} ms per step", 1000.0),
    "share_of_bandwidth_limit": ("{:.1f} % of the bandwidth limit", 100.0),
    "cosine": ("cosine {:.6f} to blockwise", 1.0),
    "peak_bytes": ("{:.1f} GiB at the peak", 1 / _GIB),
}


def write(out: pathlib.Path) -> str:
    """Writes the JSON and the table of the rows that were measured so far, and returns the table."""
    rows = [line.value for line in jsonl.read_log(out / LINES).rows]
    text = table(rows)
    runtime.write_atomically(out / JSON, json.dumps({"rows": rows}, indent=1) + "\n")
    runtime.write_atomically(out / MARKDOWN, text)
    return text


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as Markdown.

    >>> print(table([{"case": "copy", "seconds": 0.5, "gigabytes_per_second": 3.0, "device": "a card", "jax": "1"}]))
    Measured on a card, jax 1.
    <BLANKLINE>
    | case | median, s | range, s | figures | temporaries, GiB | arguments, GiB | trace + lower, s | compile, s |
    |---|---:|---:|---|---:|---:|---:|---:|
    | copy | 0.5 |  | 3 GB/s |  |  |  |  |
    <BLANKLINE>
    """
    versions = dict.fromkeys(
        f"{row.get('device', '?')}, {name} {row[name]}" for row in rows for name in ("jax", "torch") if name in row
    )
    lines = [
        f"Measured on {'; '.join(versions)}.",
        "",
        "| case | median, s | range, s | figures | temporaries, GiB | arguments, GiB | trace + lower, s | compile, s |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    lines += [_line(row) for row in rows if row.get("error") != NOT_REACHED]
    if missing := [row["case"] for row in rows if row.get("error") == NOT_REACHED]:
        lines += ["", f"Not reached within `--minutes`: {'; '.join(missing)}."]
    for row in rows:
        if "profile" in row:
            lines += ["", *_profile(row["case"], row["profile"])]
    return "\n".join(lines) + "\n"


def _profile(case: str, profile: dict[str, Any]) -> list[str]:
    """Returns the lines of a profile: what takes the most time."""
    busy, span = profile["busy_seconds"], profile["span_seconds"]
    lines = [
        f'One call of "{case}" under the profiler: {profile["count"]} operations, {busy:.4g} s in operations, '
        f"{span:.4g} s from the first to the last.",
    ]
    for name in ("by_source", "by_kernel"):
        lines += ["", f"| {name.replace('by_', '')} | ms | count |", "|---|---:|---:|"]
        lines += [f"| `{row[0]}` | {row[1]:.2f} | {row[2]} |" for row in profile[name][:_MOST_OPERATIONS]]
    return lines


def _line(row: dict[str, Any]) -> str:
    """Returns one line of the table."""
    figures = [form.format(factor * row[name]) for name, (form, factor) in _FIGURES.items() if name in row]
    times, error = row.get("times"), row.get("error")
    cells = [
        row["case"],
        f"{row['seconds']:.4g}" if "seconds" in row else "",
        f"{min(times):.4g} to {max(times):.4g}" if times else "",
        ", ".join(figures) if not error else cell(error),
        *(f"{row[name] / _GIB:.2f}" if name in row else "" for name in ("temp_bytes", "argument_bytes")),
        f"{row['trace_seconds'] + row['lower_seconds']:.1f}" if "lower_seconds" in row else "",
        f"{row['compile_seconds']:.1f}" if "compile_seconds" in row else "",
    ]
    return f"| {' | '.join(cells)} |"
