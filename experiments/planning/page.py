"""A plan as a table and a figure."""

import pathlib
from collections.abc import Sequence
from typing import Any

GIB = 2**30
HEAD = ("phase", "weights", "optimizer", "scorer", "caches", "temporaries", "total", "HBM", "fits", "time (estimate)")


def table(header: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; figures are GiB a chip."""
    lines = [
        f"`--preset={header['preset']}` on `--topology={header['topology']}` x {header['num_slices']}, "
        f"`--mesh={header['mesh']}`: {header['model']}, {header['tasks']} task(s), m={header['m']}, k={header['k']}, "
        f"{header['tokens']} tokens a row, K={header['K']}, LoRA rank {header['rank']}, {header['dtype']} base.",
        "",
        "GiB a chip, by the compiler, which ran nothing; weights, optimizer, scorer, caches are counted from shapes. "
        "The total is what the phase's program lays out, plus what stays on the chip beside it. "
        "The compiler gives no time; the estimate is a roofline at the chip's peaks and leaves the links out.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---|" + "---:|" * (len(HEAD) - 1),
    ]
    return "\n".join([*lines, *(_line(row) for row in rows), "", *(_note(row) for row in rows if not row["fits"])])


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

    shown = [row for row in rows if row["temporaries"] is not None]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 * len(shown) + 1.6), layout="constrained")
    left = [0.0] * len(shown)
    parts = (("weights", "#374151"), ("optimizer", "#6b7280"), ("scorer", "#9aa5b1"), ("temporaries", "#c2410c"))
    for name, colour in parts:
        sizes = [row[name] / GIB for row in shown]
        axes.barh([row["phase"] for row in shown], sizes, left=left, color=colour, label=name)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    if shown and shown[0]["hbm"]:
        axes.axvline(shown[0]["hbm"] / GIB, color="black", linestyle="--", label="memory of a chip")
    axes.invert_yaxis()
    axes.set_xlabel("GiB a chip")
    model = header["model"].split("/")[-1]
    figure.suptitle(f"{model} on {header['topology']} x {header['num_slices']}, {header['mesh']}")
    figure.legend(loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
