"""A plan as a table and a figure, and several plans of the same work on more and more chips."""

import html
import pathlib
import re
from collections.abc import Sequence
from typing import Any

GIB = 2**30
_WORK = ("model", "tasks", "m", "k", "tokens", "K", "rank", "dtype", "adjoint")
HEAD = ("phase", "weights", "optimizer", "scorer", "caches", "temporaries", "total", "HBM", "fits", "time (estimate)")


def table(header: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; figures are GiB a chip."""
    tpu7x = header["topology"].startswith("tpu7x")
    halves = " A TPU7x is two devices; what is said of a chip is of one of them." if tpu7x else ""
    lines = [
        f"`--preset={header['preset']}` on `--topology={header['topology']}` x {header['num_slices']}, "
        f"`--mesh={header['mesh']}`: {escaped(header['model'])}, {header['tasks']} task(s), "
        f"m={header['m']}, k={header['k']}, "
        f"{header['tokens']} tokens a row, K={header['K']}, LoRA rank {header['rank']}, {header['dtype']} base.",
        "",
        "GiB a chip, by the compiler, which ran nothing; weights, optimizer, scorer, caches are counted from shapes. "
        "The total is what the phase's program lays out, plus what stays on the chip beside it. "
        "The compiler gives no time; the estimate is a roofline at the chip's peaks and leaves the links out." + halves,
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---|" + "---:|" * (len(HEAD) - 1),
    ]
    return "\n".join([*lines, *(_line(row) for row in rows), "", *(_note(row) for row in rows if not row["fits"])])


def escaped(text: str) -> str:
    """Escapes what Markdown and HTML would interpret, in a name that may be a path.

    >>> print(escaped("models/[a]_b|c<d>"))
    models/\\[a\\]\\_b\\|c&lt;d&gt;
    """
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(text, quote=False))


def _line(row: dict[str, Any]) -> str:
    caches = row["caches"] if "decode" in row["phase"] else None
    sizes = [row["weights"], row["optimizer"], row["scorer"], caches, row["temporaries"], row["total"], row["hbm"]]
    fits = {True: "yes", False: "**no**", None: "unknown"}[row["fits"]]
    seconds = "none" if row.get("roofline_seconds") is None else f"{row['roofline_seconds']:.2g} s"
    return "| " + " | ".join([row["phase"], *(_gib(size) for size in sizes), fits, seconds]) + " |"


def _gib(size: float | None) -> str:
    return "" if size is None else f"{size / GIB:.2f}"


def _note(row: dict[str, Any]) -> str:
    said = f" The compiler: {row['refused']}" if row["refused"] else ""
    return f"- {row['phase']}: {row.get('advice', '')}{said}" if row["fits"] is False else ""


def figure(header: dict[str, Any], rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """What fills a chip in each phase, against its memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.6 * len(rows) + 1.6), layout="constrained")
    names = [row["phase"] for row in rows]
    left = [0.0] * len(rows)
    parts = (("weights", "#374151"), ("optimizer", "#6b7280"), ("scorer", "#9aa5b1"), ("temporaries", "#c2410c"))
    for name, colour in parts:
        sizes = [0.0 if row["refused"] else row[name] / GIB for row in rows]
        axes.barh(names, sizes, left=left, color=colour, label=name)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    hbm = rows[0]["hbm"] / GIB if rows and rows[0]["hbm"] else None
    if hbm:
        axes.axvline(hbm, color="black", linestyle="--", label="memory of a chip")
        axes.set_xlim(0, 1.3 * hbm)
    if refused := [row for row in rows if row["refused"]]:
        sizes = [row["total"] / GIB for row in refused]
        bars = axes.barh([row["phase"] for row in refused], sizes, color="none", edgecolor="#c2410c", hatch="//")
        bars.set_label("refused by the compiler")
        for bar, size in zip(bars, sizes, strict=True):
            axes.text(
                0.2, bar.get_y() + bar.get_height() / 2, f" {size:.1f} GiB ", va="center", backgroundcolor="white"
            )
    axes.invert_yaxis()
    axes.set_xlabel("GiB a chip")
    model = header["model"].split("/")[-1]
    title = f"{model} on {header['topology']} x {header['num_slices']}, {header['mesh']}"
    figure.suptitle(title, parse_math=False)  # a path may hold dollars
    figure.legend(loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def joined(plans: Sequence[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    """One phase's rows of several plans, by number of chips.

    Raises:
        ValueError: the plans are of different work, or one lacks the phase; names it.
    """
    found = []
    for plan in plans:
        row = next((row for row in plan["rows"] if row["phase"] == phase), None)
        if row is None:
            raise ValueError(f"the plan for {plan['topology']} has no phase {phase!r}; run it with --phases={phase!r}")
        if other := [name for name in _WORK if plan[name] != plans[0][name]]:
            raise ValueError(
                f"the plans differ in {other[0]}: {plans[0][other[0]]} and {plan[other[0]]}; join the same work"
            )
        found.append({name: plan[name] for name in ("topology", "num_slices", "chips", "mesh")} | row)
    return sorted(found, key=lambda row: row["chips"])


def chips_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; figures are GiB a chip."""
    lines = [
        f"`{rows[0]['phase']}`, GiB a chip, by the compiler:",
        "",
        "| topology | chips | mesh | temporaries | total |",
    ]
    lines.append("|---|---:|---|---:|---:|")
    for row in rows:
        slices = f" x {row['num_slices']}" if row["num_slices"] > 1 else ""
        sizes = f"{_gib(row['temporaries'])} | {_gib(row['total'])}"
        lines.append(f"| {row['topology']}{slices} | {row['chips']} | {row['mesh']} | {sizes} |")
    return "\n".join(lines) + "\n"


def chips_figure(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """Temporaries and total a chip against the number of chips; both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    phase, rows = rows[0]["phase"], [row for row in rows if not row["refused"]]
    chips = [row["chips"] for row in rows]
    for name, colour in (("total", "#374151"), ("temporaries", "#c2410c")):
        axes.plot(chips, [row[name] / GIB for row in rows], "o-", color=colour, label=name)
    if rows:  # matplotlib has no logarithm of nothing
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
    axes.set_xticks(chips, [f"{row['chips']}\n{row['topology']}" for row in rows])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("chips")
    axes.set_ylabel("GiB a chip")
    axes.set_title(phase if rows else f"{phase}: refused by the compiler in every plan")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
