"""Tables and figures of a plan, and of several plans for different numbers of chips."""

import html
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mass_jax.render import plot

GIB = 2**30
_WORK = ("model", "tasks", "m", "k", "tokens", "K", "rank", "dtype", "adjoint")
_LOOKS = {  # part of the memory -> color and hatch
    "weights": ("#0072B2", ""),
    "optimizer": ("#56B4E9", "////"),
    "scorer": ("#009E73", "\\\\\\\\"),
    "temporaries": ("#E69F00", ""),
}
HEAD = ("phase", "weights", "optimizer", "scorer", "caches", "temporaries", "total", "HBM", "fits", "time (estimate)")


def table(header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats a plan as Markdown, in GiB per chip."""
    halves = ""
    if header["topology"].startswith("tpu7x"):
        halves = " JAX counts a TPU7x as two devices; numbers per chip are for one of them."
    lines = [
        f"`--preset={header['preset']}` on `--topology={header['topology']}` x {header['num_slices']}, "
        f"`--mesh={header['mesh']}`: {escaped(header['model'])}, {header['tasks']} task(s), "
        f"m={header['m']}, k={header['k']}, "
        f"{header['tokens']} tokens per row, K={header['K']}, LoRA rank {header['rank']}, {header['dtype']} base.",
        "",
        "GiB per chip. Temporaries are reported by the compiler, which ran nothing; weights, optimizer, scorer and "
        "caches are computed from shapes. The total is the memory of the phase's program and of everything that stays "
        "on the chip during it. The time is a roofline estimate at the chip's peak rates, without communication."
        + halves,
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---|" + "---:|" * (len(HEAD) - 1),
    ]
    return "\n".join([*lines, *(_line(row) for row in rows), "", *(_note(row) for row in rows if not row["fits"])])


def escaped(text: str) -> str:
    """Escapes characters with a meaning in Markdown or HTML.

    >>> print(escaped("models/[a]_b|c<d>"))
    models/\\[a\\]\\_b\\|c&lt;d&gt;
    """
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(text, quote=False))


def _line(row: Mapping[str, Any]) -> str:
    caches = row["caches"] if "decode" in row["phase"] else None
    sizes = [row["weights"], row["optimizer"], row["scorer"], caches, row["temporaries"], row["total"], row["hbm"]]
    fits = {True: "yes", False: "**no**", None: "unknown"}[row["fits"]]
    seconds = "unknown" if row.get("roofline_seconds") is None else f"{row['roofline_seconds']:.2g} s"
    return "| " + " | ".join([row["phase"], *(_gib(size) for size in sizes), fits, seconds]) + " |"


def _gib(size: float | None) -> str:
    return "" if size is None else f"{size / GIB:.2f}"


def _note(row: Mapping[str, Any]) -> str:
    message = f". Compiler: {row['refused']}" if row["refused"] else ""
    return f"- {row['phase']}: {row.get('advice', '')}{message}" if row["fits"] is False else ""


def figure(header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> Figure:
    """Plots the memory per chip of each phase by kind, against the memory of the chip.

    A phase that the compiler refuses is a single hatched bar with its total.
    """
    with plot.figure(path, 0.3 * len(rows) + 1.45) as figure:
        axes = figure.subplots()
        places, left = np.arange(len(rows)), np.zeros(len(rows))
        for name, (color, hatch) in _LOOKS.items():
            sizes = np.array([0.0 if row["refused"] else row[name] / GIB for row in rows])
            look: dict[str, Any] = {"color": color, "edgecolor": "white", "linewidth": 0.4, "hatch": hatch}
            axes.barh(places, sizes, 0.65, left=left, label=name, **look)
            left += sizes
        hbm = rows[0]["hbm"] / GIB if rows and rows[0]["hbm"] else None
        if hbm:
            axes.axvline(hbm, color="black", linestyle="--", label="memory per chip")
            axes.set_xlim(0, 1.3 * hbm)
        if refused := [number for number, row in enumerate(rows) if row["refused"]]:
            sizes = np.array([rows[number]["total"] / GIB for number in refused])
            look = {"facecolor": "white", "edgecolor": "#D55E00", "hatch": "////"}
            axes.barh(places[refused], sizes, 0.65, label="refused by the compiler", **look)
            for number, size in zip(refused, sizes, strict=True):
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                axes.text(0.3, number, f"{size:.1f} GiB", va="center", bbox=box)
        axes.set_yticks(places, [plot.label(row["phase"], 18) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlabel("memory (GiB per chip)")
        slices = f" x {header['num_slices']} slices" if header["num_slices"] > 1 else ""
        figure.suptitle(plot.label(f"{header['model'].split('/')[-1]}, {header['topology']}{slices}", 44))
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def joined(plans: Sequence[Mapping[str, Any]], phase: str) -> list[dict[str, Any]]:
    """Collects the rows of one phase from several plans, ordered by number of chips.

    Raises:
        ValueError: If the plans are for different work, or one lacks the phase.
    """
    found = []
    for plan in plans:
        row = next((row for row in plan["rows"] if row["phase"] == phase), None)
        if row is None:
            raise ValueError(
                f"the plan for {plan['topology']} has no phase {phase!r}; rerun it with --phases={phase!r}"
            )
        if other := [name for name in _WORK if plan[name] != plans[0][name]]:
            raise ValueError(
                f"the plans differ in {other[0]} ({plans[0][other[0]]} and {plan[other[0]]}); join the same work"
            )
        found.append({name: plan[name] for name in ("topology", "num_slices", "chips", "mesh")} | row)
    return sorted(found, key=lambda row: row["chips"])


def chips_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats memory by number of chips as Markdown, in GiB per chip."""
    lines = [
        f"`{rows[0]['phase']}`, GiB per chip, reported by the compiler:",
        "",
        "| topology | chips | mesh | temporaries | total |",
    ]
    lines.append("|---|---:|---|---:|---:|")
    for row in rows:
        slices = f" x {row['num_slices']}" if row["num_slices"] > 1 else ""
        sizes = f"{_gib(row['temporaries'])} | {_gib(row['total'])}"
        lines.append(f"| {row['topology']}{slices} | {row['chips']} | {row['mesh']} | {sizes} |")
    return "\n".join(lines) + "\n"


def chips_figure(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> Figure:
    """Plots total and temporary memory per chip against the number of chips, on logarithmic axes."""
    phase, rows = rows[0]["phase"], [row for row in rows if not row["refused"]]
    chips = [row["chips"] for row in rows]
    with plot.figure(path, 2.3) as figure:
        axes = figure.subplots()
        for number, name in enumerate(("total", "temporaries")):
            axes.plot(chips, [row[name] / GIB for row in rows], label=name, **plot.look(number))
        if rows:  # an empty logarithmic axis has no limits
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
        axes.set_xticks(chips, [f"{row['chips']}\n{row['topology']}" for row in rows])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(axis="y")
        axes.set_xlabel("number of chips")
        axes.set_ylabel("memory (GiB per chip)")
        figure.suptitle(plot.label(phase if rows else f"{phase}: refused by the compiler in every plan", 44))
        axes.legend()
    return figure
