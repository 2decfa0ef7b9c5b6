"""Who decides whether two expressions are equal: plain numbers here, anything else in a worker process."""

import functools
import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

Sides = tuple[str, str]

_RATIONAL = re.compile(
    r"(?P<sign>-?) ?(?:(?P<whole>[0-9]+)? ?\\frac\{(?P<top>[0-9]+)\}\{(?P<bottom>[0-9]+)\}"
    r"|(?P<mixed>[0-9]+) (?P<over>[0-9]+) ?/ ?(?P<under>[0-9]+)"
    r"|(?P<a>[0-9]+) ?/ ?(?P<b>[0-9]+)"
    r"|(?P<units>[0-9]*)\.(?P<before>[0-9]*)\\overline\{(?P<again>[0-9]+)\}"
    r"|(?P<decimal>[0-9]*\.[0-9]+|[0-9]+\.?|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?))"
)
# Divisions by a nonzero number or a variable; what is left of an expression without them may still divide by zero.
_PLAIN_FRACTION = re.compile(r"\\frac\{[^{}]*\}\{(?:[1-9][0-9]*|[a-zA-Z]|\\pi)\}")
_PLAIN_QUOTIENT = re.compile(r"/ ?[1-9][0-9]*(?![0-9.!^])")
_MAY_BE_UNDEFINED = re.compile(r"/|\\(?:frac|div|tan|cot|sec|csc|log|ln|binom)(?![a-zA-Z])|\^ ?\{? ?[-0(]|[:!\[]")


class Undecided(Exception):
    """Raised for an expression that is not a plain rational number: a worker has to decide."""


class Judge(NamedTuple):
    """Decides expressions in LaTeX, at the leaves of what is compared.

    Args:
        equal: whether two expressions are the same.
        equal_relations: whether two-sided relations of the same sign say the same; `symmetric` if it is = or ne.
        close: whether the second expression is the first one, rounded to the digits that it has.
    """

    equal: Callable[[str, str], bool]
    equal_relations: Callable[[Sides, Sides, bool], bool]
    close: Callable[[str, str], bool]


@functools.lru_cache(maxsize=4096)
def rational(latex: str) -> Fraction | None:
    r"""Returns the exact value of a plain number, or None; no arithmetic is done on anything else.

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


def fraction_latex(value: Fraction) -> str:
    r"""Returns a rational number in the form that `rational` reads.

    >>> fraction_latex(Fraction(-3, 4)), fraction_latex(Fraction(5))
    ('-\\frac{3}{4}', '5')
    """
    sign, top = "-" if value < 0 else "", abs(value.numerator)
    return sign + (str(top) if value.denominator == 1 else rf"\frac{{{top}}}{{{value.denominator}}}")


def equal_rationals(a: str, b: str) -> bool:
    """Returns whether plain numbers are exactly equal; a decimal is the rational that it spells.

    Raises:
        Undecided: if either is anything else, unless both are the same text and surely defined.
    """
    x, y = rational(a), rational(b)
    if x is not None and y is not None:
        return x == y
    if compact(a) == compact(b) and surely_defined(a):
        return True
    raise Undecided


def surely_defined(latex: str) -> bool:
    r"""Returns whether an expression has a value as far as its text shows: it divides by nothing that may be zero.

    >>> surely_defined(r"\frac{\sqrt{3}}{2}"), surely_defined("1/0"), surely_defined(r"\tan 90\degree")
    (True, False, False)
    """
    latex = re.sub(r"\\sqrt\{([1-9][0-9]*)\}", r"\1", latex)
    for _ in range(3):
        latex = _PLAIN_FRACTION.sub("1", latex)
    return not _MAY_BE_UNDEFINED.search(_PLAIN_QUOTIENT.sub("", latex))


def rounds_to(exact: Fraction, rounded: str) -> bool:
    """Returns whether a decimal is a number rounded to the decimals that it has, up or down in the middle.

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


def compact(latex: str) -> str:
    r"""Returns an expression without spaces that mean nothing; one between letters or digits stays, as in `3 1/7`.

    >>> compact(r"2 \pi r + 3 1 / 7")
    '2\\pi r+3 1/7'
    """
    return re.sub(r"(?<![a-zA-Z0-9]) | (?![a-zA-Z0-9])", "", latex)
