"""The kinds of value that an answer can be."""

import dataclasses
from typing import TypeAlias

MAX_ANSWER_CHARS = 1000
MAX_DEPTH = 24
MAX_LEVELS = 10  # of lists in tuples in relations and so on
MAX_ITEMS = 64
MAX_DIGITS = 400


class Unreadable(ValueError):
    """Raised for text that is not an answer; the message is a short reason that is counted."""


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A number or expression in LaTeX, and its canonical unit."""

    latex: str
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Words:
    """Prose such as `Monday`; compared as words, never as a product of letters."""

    text: str


@dataclasses.dataclass(frozen=True)
class Based:
    """A number written in a base: digits, and the base as it was written."""

    digits: str
    base: str


@dataclasses.dataclass(frozen=True)
class Clock:
    """A time of day: hours, minutes and, if written, seconds; `half` is "am", "pm" or ""."""

    numbers: tuple[int, ...]
    half: str = ""


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Two or more terms between colons."""

    terms: tuple[Scalar, ...]


@dataclasses.dataclass(frozen=True)
class Many:
    """Several answers in any order: a list, a set, or (`union`) a union of sets."""

    items: "tuple[Value, ...]"
    union: bool = False


@dataclasses.dataclass(frozen=True)
class Ordered:
    """Tuple or interval, with the brackets that opened and closed it."""

    brackets: str
    items: "tuple[Value, ...]"


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Rows of cells, times a factor in LaTeX."""

    rows: "tuple[tuple[Value, ...], ...]"
    factor: str = "1"


@dataclasses.dataclass(frozen=True)
class Relation:
    """A chain of expressions with the signs between them: = approx < > le ge ne."""

    parts: "tuple[Value, ...]"
    signs: tuple[str, ...]


Value: TypeAlias = Scalar | Words | Based | Clock | Ratio | Many | Ordered | Matrix | Relation
