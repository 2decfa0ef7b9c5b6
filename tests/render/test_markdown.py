"""Escaping of text in Markdown tables."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.benchmarks.accelerator_report import table
from mass_jax.render.html import visible
from mass_jax.render.markdown import cell

SPECIAL = "[]()`*_|<>&\\!#~ab 1\n\"'{}:"
ERROR = "Error: of 3 GiB [tf-error=''] [name='jit__g'] [link](http://x) a|b <b>"


def shown(text):
    """The text of the second column of a table whose cell is the text, as a browser shows it."""
    markdown = pytest.importorskip("markdown")
    page = markdown.markdown(f"| a | b |\n|---|---|\n| 1 | {text} |\n", extensions=["tables"])
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert len(cells) == 2, page
    return cells[1]


@given(st.text(SPECIAL, min_size=1, max_size=30))
def test_cell_shows_text_literally(text):
    found = shown(cell(text))
    assert "<" not in found
    assert html.unescape(found).strip() == visible(text).strip()


def test_accelerator_table_shows_errors_literally():
    (line,) = [line for line in table([{"case": "a", "error": ERROR}]).splitlines() if line.startswith("| a ")]
    assert html.unescape(shown(line.split(" | ", 3)[3].rsplit(" | ", 4)[0])).strip() == ERROR


def test_cell_keeps_names_readable():
    assert cell("rung_by_hand 0.5") == "rung_by_hand 0.5"
