"""Figure style: one Matplotlib style file, color-blind-safe colors with a marker each, PNG and SVG output."""

import contextlib
import pathlib
import textwrap
from collections.abc import Iterator
from typing import Any

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from mass_jax.render.html import visible

COLUMN = 3.25  # inches, the width of one column of a two-column paper
STYLE = pathlib.Path(__file__).with_name("mass.mplstyle")
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#5A5A5A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)), (0, (3, 3)))
GRAY = "#5A5A5A"


@contextlib.contextmanager
def figure(path: pathlib.Path, height: float, width: float = COLUMN) -> Iterator[Figure]:
    """Opens a figure in the project's style and saves it as PNG and as SVG when the block ends without an error.

    Args:
        path: where to save; the suffix is replaced by .png and .svg.
        height: inches.
        width: inches.
    """
    with matplotlib.rc_context(fname=str(STYLE)):
        made = Figure(figsize=(width, height))  # without pyplot: no backend to choose, no state to close
        yield made
        path.parent.mkdir(parents=True, exist_ok=True)
        made.savefig(path.with_suffix(".png"), metadata={"Software": None})
        made.savefig(path.with_suffix(".svg"), metadata={"Creator": None, "Date": None})


def look(number: int, dashes: str | None = None) -> dict[str, Any]:
    """Returns color, marker and dashes of a series, so that series differ in more than color.

    Args:
        number: index of the series in its figure.
        dashes: a line style in place of the series' own; "" draws markers without a line.
    """
    number %= len(COLORS)
    style = DASHES[number] if dashes is None else dashes
    return {"color": COLORS[number], "marker": MARKERS[number], "linestyle": style}


def plain_log(axis: Axis) -> None:
    """Labels a logarithmic axis with plain numbers, more densely on less than a decade.

    Args:
        axis: the axis, with its data already drawn.
    """
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=range(1, 10) if high < 8 * low else (1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def label(text: str, width: int = 22) -> str:
    """Formats text from a data set as a label: wrapped, with unprintable characters spelled out.

    >>> label("Counting & Probability", 12)
    'Counting &\\nProbability'
    """
    return textwrap.fill(visible(text), width, break_on_hyphens=False) or "(none)"
