"""Tests of parsed values of random LaTeX arithmetic against values computed while generating it."""

import math
import random
from fractions import Fraction

from mass_jax.tasks.grading.answer import read
from mass_jax.tasks.grading.symbolic import parse


def number(rng):
    digit = rng.randint(1, 9)
    return rng.choice(
        [(f"{digit}", Fraction(digit)), (f"{digit}.5", Fraction(2 * digit + 1, 2)), (f"{digit}0", digit * 10)]
    )


def factor(rng, depth):
    """Generates (LaTeX, value) of one factor with nested expressions up to a depth."""
    kind = rng.randrange(8 if depth else 4)
    n = rng.randint(1, 6)
    if kind == 0:
        return number(rng)
    if kind == 1:
        return rf"\sqrt{{{n * n}}}", n
    if kind == 2:
        k = rng.randint(0, n)
        return rf"\binom{{{n}}}{{{k}}}", math.comb(n, k)
    if kind == 3:
        return f"{n}!", math.factorial(n)
    text, value = expression(rng, depth - 1)
    if kind == 4:
        return f"({text})", value
    if kind == 5:
        return f"({text})^{{2}}", value * value
    if kind == 6:
        return f"|{text}|", abs(value)
    below, divisor = expression(rng, depth - 1)
    return (rf"\frac{{{text}}}{{{below}}}", Fraction(value) / divisor) if divisor else number(rng)


def product(rng, depth):
    text, value = factor(rng, depth)
    for _ in range(rng.randrange(3)):
        other, factor_value = factor(rng, depth)
        adjacent = not (other[0].isdigit() or "|" in (text[-1], other[0]) or (other[1] == "f" and text[-1].isdigit()))
        text += rng.choice(["", " ", r"\cdot "] if adjacent else [r"\cdot ", r"\times ", "*"]) + other
        value *= factor_value
    return text, value


def expression(rng, depth):
    text, value = product(rng, depth)
    if rng.random() < 0.5:
        other, more = product(rng, depth)
        text, value = rng.choice([(f"{text}+{other}", value + more), (f"{text}-{other}", value - more)])
    return text, value


def test_parse_computes_random_arithmetic():
    rng = random.Random(3)
    checked = 0
    for _ in range(250):
        text, value = expression(rng, rng.randrange(3))
        if len(text) < 90:
            found = float(parse(read(text).latex))
            assert math.isclose(found, value, rel_tol=1e-9), (text, value, found)
            checked += 1
    assert checked > 150
