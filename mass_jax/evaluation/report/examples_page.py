"""Qualitative examples as one self-contained HTML file; all model output is escaped."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.render.html import environment


def write_page(records: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Writes the page: problem, examples of each stage with scores and rewards, answers before and after adaptation.

    Args:
        records: from `mass_jax.evaluation.qualitative.worked_examples`.
        path: the HTML file.
    """
    template = environment(__package__, keep="\n").get_template("examples.html.jinja")
    path.write_text(template.render(records=records), encoding="utf-8")
