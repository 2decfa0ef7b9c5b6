"""Figure style: one Matplotlib style file, color-blind-safe colors with a marker each, PNG and SVG output."""

import contextlib
import pathlib
import textwrap
from collections.abc import Iterator

import matplotlib
from matplotlib.figure import Figure

from mass_jax.render.html import visible

COLUMN = 3.25  # inches, the width of one column of a two-column paper
STYLE = pathlib.Path(__file__).with_name("mass.mplstyle")
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)), (0, (3, 3)))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")
GRAY = "#777777"


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


def label(text: str, width: int = 22) -> str:
    """Text from a data set as a label: wrapped, with unprintable characters spelled out.

    >>> label("Counting & Probability", 12)
    'Counting &\\nProbability'
    """
    return textwrap.fill(visible(text), width) or "(none)"
