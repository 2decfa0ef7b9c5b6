"""Builds the report of a workdir from its records."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.report import figures, page
from mass_jax.report.table import Records, make_table, to_markdown


def write_report(
    out: pathlib.Path,
    *,
    records: Records,
    labels: Mapping[str, str],
    methods: Sequence[str],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    warmup: int,
    worked: Sequence[Mapping[str, Any]],
    limits: Sequence[str],
) -> dict[str, Any]:
    """Writes table1.json, table1.md, three figures and a page of worked examples into `out`; returns the table.

    Args:
        records: row name -> records of every seed.
        labels, methods: printed names; which rows are methods, in order.
        curves: training run -> its metrics.
        warmup: steps in which only the scorer learned.
        worked: from `mass_jax.worked`; may be empty.
        limits: what the table does not show, printed beneath it.
    """
    out.mkdir(parents=True, exist_ok=True)
    table = make_table(records, labels, methods) | {"limits": list(limits)}
    (out / "table1.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    (out / "table1.md").write_text(to_markdown(table, limits), encoding="utf-8")
    figures.accuracy(table, out / "accuracy.png")
    if len(methods) > 1:
        figures.gain_by_subject(table, out / "gain_by_subject.png")
    if curves:
        figures.training_curves(curves, out / "training.png", warmup)
    if worked:
        page.write_page(worked, out / "examples.html")
    return table
