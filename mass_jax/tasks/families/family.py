"""Families of one-step arithmetic: texts, operands and answers, each readable in both directions.

Every problem rests on one fact, a + b = c or a * b = c. Families differ in which numbers are given, which one is asked
for and in what words, so a model may know a fact in one family and not in another.
"""

import dataclasses
import functools
import random
from collections.abc import Mapping
from typing import Any, Literal

import re2

from mass_jax.tasks.patterns import encodable

MAX_CHARS = 400  # of a text that is read


@dataclasses.dataclass(frozen=True)
class Fact:
    """a + b = c or a * b = c, over natural numbers.

    >>> Fact("*", 6, 7).c
    42
    """

    operation: Literal["+", "*"]
    a: int
    b: int

    @property
    def c(self) -> int:
        return self.a + self.b if self.operation == "+" else self.a * self.b

    @property
    def operands(self) -> tuple[int, int]:
        """Both operands, the smaller first: 6 * 7 and 7 * 6 are one fact to whoever learns it."""
        return min(self.a, self.b), max(self.a, self.b)


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to put a problem.

    Args:
        text: with two of the fields {a}, {b}, {c}; words may also have {who} and {what}.
        operation: of its facts.
        asked: the number that the text does not give.
        first, second: values that a and b are drawn from.

    >>> form = Form("x + {b} = {c}", "+", "a", range(2, 50), range(2, 50))
    >>> form.read("x + 3 = 10")
    Fact(operation='+', a=7, b=3)
    """

    text: str
    operation: Literal["+", "*"]
    asked: Literal["a", "b", "c"]
    first: range
    second: range

    def write(self, fact: Fact, rng: random.Random) -> str:
        """The problem of a fact."""
        return self.text.format(a=fact.a, b=fact.b, c=fact.c, who=rng.choice(WHO), what=rng.choice(WHAT))

    def read(self, text: str) -> Fact | None:
        """The fact beneath a problem of this form; None for another text, or where no natural number is the answer."""
        match = _pattern(self.text).fullmatch(encodable(text)) if len(text) <= MAX_CHARS else None
        if match is None:
            return None
        given = {name: int(value) for name, value in match.groupdict().items()}
        if self.asked == "c":
            return Fact(self.operation, given["a"], given["b"])
        known, total = given["b" if self.asked == "a" else "a"], given["c"]
        other = _missing(self.operation, known, total)
        if other is None:
            return None
        return Fact(self.operation, other, known) if self.asked == "a" else Fact(self.operation, known, other)

    def answer(self, fact: Fact) -> int:
        return int(getattr(fact, self.asked))

    def covers(self, fact: Fact) -> bool:
        """Whether problems of this form are drawn with these operands, in either order."""
        pairs = ((fact.a, fact.b), (fact.b, fact.a))
        return any(a in self.first and b in self.second for a, b in pairs)


def find(text: str) -> tuple[str, Form, Fact] | None:
    """Family, form and fact of a problem's text; None if it is of no family.

    Where two families share a form, the one with such operands is meant, and else the later (wider) one.

    >>> find("7 * 14")[0], find("7 * 8")[0], find("the moon") is None
    ('wide multiplication', 'times table', True)
    """
    found = [
        (name, form, fact)
        for name, forms in FAMILIES.items()
        for form in forms
        if (fact := form.read(text)) is not None
    ]
    return next((entry for entry in found if entry[1].covers(entry[2])), found[-1] if found else None)


def _missing(operation: str, known: int, total: int) -> int | None:
    """The other operand, where it is a natural number."""
    if operation == "+":
        return total - known if total >= known else None
    return total // known if known and total % known == 0 else None


@functools.cache
def _pattern(text: str) -> Any:
    """A form as a pattern; numbers have at most six digits, so that reading stays cheap."""
    pattern = re2.escape(text)
    for name in "abc":
        pattern = pattern.replace(rf"\{{{name}\}}", rf"(?P<{name}>[0-9]{{1,6}})")
    for name in ("who", "what"):
        pattern = pattern.replace(rf"\{{{name}\}}", "[A-Za-z]{1,20}")
    return re2.compile(pattern)


WHO = ("Tom", "Ann", "Ben", "Mia", "Sam", "Eva")
WHAT = ("pens", "books", "coins", "cards", "nuts", "eggs")
_ADDENDS, _FACTORS = range(2, 20), range(2, 10)
FAMILIES: Mapping[str, tuple[Form, ...]] = {
    "addition": (Form("{a} + {b}", "+", "c", _ADDENDS, _ADDENDS),),
    "subtraction": (Form("{c} - {a}", "+", "b", _ADDENDS, _ADDENDS),),
    "x + b = c": (Form("x + {b} = {c}", "+", "a", _ADDENDS, _ADDENDS),),
    "times table": (Form("{a} * {b}", "*", "c", _FACTORS, _FACTORS),),
    "wide multiplication": (Form("{a} * {b}", "*", "c", _FACTORS, range(11, 20)),),
    "ax = c": (Form("{b}x = {c}", "*", "a", range(2, 13), _FACTORS),),
    "words": (
        Form("{who} has {a} {what}, buys {b}. How many?", "+", "c", _ADDENDS, _ADDENDS),
        Form("{who} has {c} {what}, loses {a}. How many?", "+", "b", _ADDENDS, _ADDENDS),
        Form("{who} has {a} bags of {b} {what}. How many?", "*", "c", _FACTORS, range(2, 13)),
    ),
}
