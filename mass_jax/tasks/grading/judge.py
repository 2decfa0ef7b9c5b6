"""The `Judge` interface for comparing expressions, and a judge for rational numbers.

A `Judge` holds the three comparisons that `compare.same` needs at the leaves of a structure. `RATIONALS` runs in the
main process and only knows rational numbers; `symbolic.SYMBOLIC` uses sympy and runs in worker processes.
"""

import functools
import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

Sides = tuple[str, str]
"""Both sides of a relation, in LaTeX."""

_RATIONAL = re.compile(
    r"(?P<sign>-?) ?(?:(?P<whole>[0-9]+)? ?\\frac\{(?P<top>[0-9]+)\}\{(?P<bottom>[0-9]+)\}"
    r"|(?P<mixed>[0-9]+) (?P<over>[0-9]+) ?/ ?(?P<under>[0-9]+)"
    r"|(?P<a>[0-9]+) ?/ ?(?P<b>[0-9]+)"
    r"|(?P<units>[0-9]*)\.(?P<before>[0-9]*)\\overline\{(?P<again>[0-9]+)\}"
    r"|(?P<decimal>[0-9]*\.[0-9]+|[0-9]+\.?|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?))"
)
# Divisions by a nonzero number or a variable; the rest of an expression may still divide by zero.
_PLAIN_FRACTION = re.compile(r"\\frac\{[^{}]*\}\{(?:[1-9][0-9]*|[a-zA-Z]|\\pi)\}")
_PLAIN_QUOTIENT = re.compile(r"/ ?[1-9][0-9]*(?![0-9.!^])")
_MAY_BE_UNDEFINED = re.compile(r"/|\\(?:frac|div|tan|cot|sec|csc|log|ln|binom)(?![a-zA-Z])|\^ ?\{? ?[-0(]|[:!\[]")


class Undecided(Exception):
    """Raised by `RATIONALS` for other expressions, which a worker has to compare."""


class Judge(NamedTuple):
    """Comparisons of LaTeX expressions, used at the leaves of compared structures.

    Attributes:
        equal: Function (a, b) that returns whether two expressions are equal.
        equal_relations: Function (gold, answer, symmetric) that returns whether two relations of the same sign are
            equivalent; `symmetric` is true for = and ne.
        close: Function (exact, rounded) that returns whether the second expression is the first one, rounded to the
            decimals that it has.
    """

    equal: Callable[[str, str], bool]
    equal_relations: Callable[[Sides, Sides, bool], bool]
    close: Callable[[str, str], bool]


@functools.lru_cache(maxsize=4096)
def rational(latex: str) -> Fraction | None:
    r"""Returns the exact value of a plain number, or None for any other expression.

    Example:
        >>> rational(r"-11\frac{2}{3}"), rational("0.48"), rational("1,250"), rational(r"0.1\overline{6}")
        (Fraction(-35, 3), Fraction(12, 25), Fraction(1250, 1), Fraction(1, 6))
        >>> rational("2+2") is None
        True
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


def fraction_latex(value: Fraction) -> str:
    r"""Formats a rational number so that `rational` parses it.

    Example:
        >>> fraction_latex(Fraction(-3, 4)), fraction_latex(Fraction(5))
        ('-\\frac{3}{4}', '5')
    """
    sign, top = "-" if value < 0 else "", abs(value.numerator)
    return sign + (str(top) if value.denominator == 1 else rf"\frac{{{top}}}{{{value.denominator}}}")


def equal_rationals(a: str, b: str) -> bool:
    """Returns whether two plain numbers are exactly equal; a decimal has its exact rational value.

    Raises:
        Undecided: If either expression is not a plain number, unless both have the same text and are surely defined.
    """
    x, y = rational(a), rational(b)
    if x is not None and y is not None:
        return x == y
    if compact(a) == compact(b) and surely_defined(a):
        return True
    raise Undecided


def surely_defined(latex: str) -> bool:
    r"""Returns whether the text of an expression shows that it has a value: no divisor can be zero.

    Example:
        >>> surely_defined(r"\frac{\sqrt{3}}{2}"), surely_defined("1/0"), surely_defined(r"\tan 90\degree")
        (True, False, False)
    """
    latex = re.sub(r"\\sqrt\{([1-9][0-9]*)\}", r"\1", latex)
    for _ in range(3):
        latex = _PLAIN_FRACTION.sub("1", latex)
    return not _MAY_BE_UNDEFINED.search(_PLAIN_QUOTIENT.sub("", latex))


def rounds_to(exact: Fraction, rounded: str) -> bool:
    """Returns whether a decimal is a number rounded to the decimals that it has; halves may round either way.

    Args:
        exact: The number.
        rounded: The decimal.

    Example:
        >>> rounds_to(Fraction(1, 3), "0.33"), rounds_to(Fraction(1, 3), "1.3")
        (True, False)
    """
    value = rational(rounded)
    decimals = len(rounded.partition(".")[2]) if re.fullmatch(r"-? ?[0-9,]*(?:\.[0-9]*)?", rounded) else 0
    return value is not None and abs(exact - value) * 2 * 10**decimals <= 1


def _close_rationals(a: str, b: str) -> bool:
    x, y = rational(a), rational(b)
    if x is None or y is None:
        raise Undecided
    return rounds_to(x, b)


def _undecided_relations(gold: Sides, answer: Sides, symmetric: bool) -> bool:
    raise Undecided


RATIONALS = Judge(equal_rationals, _undecided_relations, _close_rationals)
"""Judge for plain rational numbers; raises `Undecided` for other expressions."""


def compact(latex: str) -> str:
    r"""Removes insignificant spaces; a space between letters or digits stays, as in `3 1/7`.

    Example:
        >>> compact(r"2 \pi r + 3 1 / 7")
        '2\\pi r+3 1/7'
    """
    return re.sub(r"(?<![a-zA-Z0-9]) | (?![a-zA-Z0-9])", "", latex)
