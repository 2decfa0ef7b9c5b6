"""Families of one-step arithmetic problems: formatting facts as texts and parsing texts back into facts.

Every problem is built from one fact, a + b = c or a * b = c. Families differ in the numbers given, the number asked for
and the wording, so a model may know a fact in one family and not in another.
"""

import dataclasses
import functools
import random
from collections.abc import Mapping
from typing import Any, Literal

import re2

from mass_jax.tasks.patterns import encodable

MAX_CHARS = 400  # longer texts are rejected without parsing


@dataclasses.dataclass(frozen=True)
class Fact:
    """An arithmetic fact a + b = c or a * b = c over natural numbers.

    Attributes:
        operation: "+" or "*".
        a: First operand.
        b: Second operand.

    Example:
        >>> Fact("*", 6, 7).c
        42
    """

    operation: Literal["+", "*"]
    a: int
    b: int

    @property
    def c(self) -> int:
        """The result."""
        return self.a + self.b if self.operation == "+" else self.a * self.b

    @property
    def operands(self) -> tuple[int, int]:
        """Both operands, the smaller one first, since 6 * 7 and 7 * 6 teach the same."""
        return min(self.a, self.b), max(self.a, self.b)


@dataclasses.dataclass(frozen=True)
class Form:
    """A template of problem texts.

    Attributes:
        text: Format string with two of the fields {a}, {b}, {c}; word problems may also have {who} and {what}.
        operation: Operation of its facts.
        asked: The number that the text asks for.
        first: Range of a.
        second: Range of b.

    Example:
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
        """Returns the problem text of a fact; `rng` chooses the names and objects."""
        return self.text.format(a=fact.a, b=fact.b, c=fact.c, who=rng.choice(WHO), what=rng.choice(WHAT))

    def read(self, text: str) -> Fact | None:
        """Parses a problem text; returns None if it has another form or its answer is not a natural number."""
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
        """Returns the answer to the problem of a fact."""
        return int(getattr(fact, self.asked))

    def step(self, fact: Fact) -> str:
        """Returns the worked solution of a fact: one equation that ends in the answer.

        Example:
            >>> Form("{b}x = {c}", "*", "a", range(2, 13), range(2, 10)).step(Fact("*", 7, 4))
            '28 / 4 = 7'
        """
        if self.asked == "c":
            return f"{fact.a} {self.operation} {fact.b} = {fact.c}"
        known = fact.b if self.asked == "a" else fact.a
        inverse = "-" if self.operation == "+" else "/"
        return f"{fact.c} {inverse} {known} = {self.answer(fact)}"

    def covers(self, fact: Fact) -> bool:
        """Returns whether the operands are in the ranges of this form, in either order."""
        pairs = ((fact.a, fact.b), (fact.b, fact.a))
        return any(a in self.first and b in self.second for a, b in pairs)


def find(text: str) -> tuple[str, Form, Fact] | None:
    """Finds the family, form and fact of a problem text.

    If two families share a form, the one whose ranges cover the operands is chosen, otherwise the later (wider) one.

    Args:
        text: Problem text.

    Returns:
        (family, form, fact), or None if the text matches no family.

    Example:
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
    """Returns the other operand if it is a natural number, else None."""
    if operation == "+":
        return total - known if total >= known else None
    return total // known if known and total % known == 0 else None


@functools.cache
def _pattern(text: str) -> Any:
    """Compiles a form; numbers have at most six digits, which bounds the cost of parsing."""
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
