"""Builds the report of a workdir from its records."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.evaluation.report import examples_page, figures
from mass_jax.evaluation.report.markdown import to_markdown
from mass_jax.evaluation.report.table import Note, Records, applicable, make_table


def write_report(
    out: pathlib.Path,
    *,
    records: Records,
    labels: Mapping[str, str],
    methods: Sequence[str],
    controls: Sequence[str] = (),
    training: Mapping[str, Mapping[str, float] | None] | None = None,
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    warmup: int,
    worked: Sequence[Mapping[str, Any]],
    limits: Sequence[Note],
) -> dict[str, Any]:
    """Writes the table (JSON and Markdown), the figures (PNG and SVG) and the page of qualitative examples.

    A figure without data is not written, and one of an earlier report is removed.

    Args:
        out: the report's directory.
        records: row name -> records of every seed.
        labels: printed names of the rows.
        methods: rows that are methods, in the order of the table.
        controls: rows that are controls.
        training: `table.training_cost` by row.
        curves: training run -> its metrics.
        warmup: steps in which only the scorer learns.
        worked: from `mass_jax.evaluation.qualitative`; may be empty.
        limits: caveats; those about absent rows are left out.

    Returns:
        The table, as in table1.json.
    """
    out.mkdir(parents=True, exist_ok=True)
    notes = applicable(limits, records)
    table = make_table(records, labels, methods, controls, training) | {"limits": notes}
    (out / "table1.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    (out / "table1.md").write_text(to_markdown(table, notes), encoding="utf-8")
    for name in ("gain_by_subject", "training"):
        for suffix in (".png", ".svg"):
            (out / name).with_suffix(suffix).unlink(missing_ok=True)
    figures.accuracy(table, out / "accuracy.png")
    figures.gain_by_subject(table, out / "gain_by_subject.png")
    if curves:
        figures.training_curves(curves, out / "training.png", warmup, labels)
    if worked:
        examples_page.write_page(worked, out / "examples.html")
    return table
