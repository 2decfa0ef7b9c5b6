"""Data types of parsed answers, and limits on their size."""

import dataclasses
from typing import TypeAlias

MAX_ANSWER_CHARS = 1000
MAX_DEPTH = 24
MAX_LEVELS = 10  # nested structures, such as lists in tuples in relations
MAX_ITEMS = 64
MAX_DIGITS = 400


class Unreadable(ValueError):
    """Raised for text that is not an answer; the message is a short reason, which is counted."""


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A number or expression in LaTeX with its canonical unit, or ""."""

    latex: str
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Words:
    """Prose such as `Monday`; compared as words, never as a product of letters."""

    text: str


@dataclasses.dataclass(frozen=True)
class Based:
    """A number in an explicit base: its digits, and the base as a decimal string."""

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
    """Several answers in any order: a list or set, or a union of sets if `union` is true."""

    items: "tuple[Value, ...]"
    union: bool = False


@dataclasses.dataclass(frozen=True)
class Ordered:
    """A tuple or interval with its opening and closing bracket."""

    brackets: str
    items: "tuple[Value, ...]"


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A matrix: rows of cells, and a scalar factor in LaTeX."""

    rows: "tuple[tuple[Value, ...], ...]"
    factor: str = "1"


@dataclasses.dataclass(frozen=True)
class Relation:
    """A chain of expressions and the signs between them, each one of =, approx, <, >, le, ge and ne."""

    parts: "tuple[Value, ...]"
    signs: tuple[str, ...]


Value: TypeAlias = Scalar | Words | Based | Clock | Ratio | Many | Ordered | Matrix | Relation
"""A parsed answer."""
