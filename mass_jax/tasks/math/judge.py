"""Who decides whether two expressions are equal: plain numbers here, anything else in a worker process."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

Sides = tuple[str, str]

_RATIONAL = re.compile(
    r"(?P<sign>-?)\s*(?:(?P<whole>[0-9]+)?\s*\\frac\{(?P<top>[0-9]+)\}\{(?P<bottom>[0-9]+)\}"
    r"|(?P<mixed>[0-9]+)\s+(?P<over>[0-9]+)\s*/\s*(?P<under>[0-9]+)"
    r"|(?P<a>[0-9]+)\s*/\s*(?P<b>[0-9]+)"
    r"|(?P<units>[0-9]*)\.(?P<before>[0-9]*)\\overline\{(?P<again>[0-9]+)\}"
    r"|(?P<decimal>[0-9]*\.[0-9]+|[0-9]+\.?|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?))"
)


class Undecided(Exception):
    """An expression that is no plain rational number: a worker has to decide."""


class Judge(NamedTuple):
    """Decides expressions in LaTeX, at the leaves of what is compared.

    Args:
        equal: whether two expressions are the same.
        equal_relations: whether two-sided relations of the same sign say the same; `symmetric` if it is = or ne.
    """

    equal: Callable[[str, str], bool]
    equal_relations: Callable[[Sides, Sides, bool], bool]


def rational(latex: str) -> Fraction | None:
    r"""The exact value of a plain number, or None; no arithmetic is done on anything else.

    >>> rational(r"-11\frac{2}{3}"), rational("0.48"), rational("1,250"), rational(r"0.1\overline{6}"), rational("2+2")
    (Fraction(-35, 3), Fraction(12, 25), Fraction(1250, 1), Fraction(1, 6), None)
    """
    latex = re.sub(r"\\frac\{(-)", r"-\\frac{", latex) if latex.startswith(r"\frac") else latex
    match = _RATIONAL.fullmatch(latex.strip())
    if match is None:
        return None
    part = match.groupdict()
    try:
        if part["top"]:
            value = int(part["whole"] or 0) + Fraction(int(part["top"]), int(part["bottom"]))
        elif part["mixed"]:
            value = int(part["mixed"]) + Fraction(int(part["over"]), int(part["under"]))
        elif part["a"]:
            value = Fraction(int(part["a"]), int(part["b"]))
        elif part["again"]:
            repeated = Fraction(int(part["again"]), 10 ** len(part["again"]) - 1)
            value = (int(part["units"] + part["before"] or 0) + repeated) / 10 ** len(part["before"])
        else:
            value = Fraction(part["decimal"].replace(",", "").rstrip("."))
    except ZeroDivisionError:
        return None
    return -value if part["sign"] else value


def equal_rationals(a: str, b: str) -> bool:
    """Exact equality of plain numbers; a decimal is the rational that it spells.

    Raises:
        Undecided: if either is anything else.
    """
    if compact(a) == compact(b):
        return True
    x, y = rational(a), rational(b)
    if x is None or y is None:
        raise Undecided
    return x == y


def _undecided_relations(gold: Sides, answer: Sides, symmetric: bool) -> bool:
    raise Undecided


RATIONALS = Judge(equal_rationals, _undecided_relations)


def compact(latex: str) -> str:
    r"""Without spaces that mean nothing; one between letters or digits stays, as in `\pi r` and `3 1/7`.

    >>> compact(r"2 \pi r + 3 1 / 7")
    '2\\pi r+3 1/7'
    """
    return re.sub(r"(?<![a-zA-Z0-9])\s+|\s+(?![a-zA-Z0-9])", "", latex)
