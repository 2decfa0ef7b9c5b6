"""Tests of symbolic equality, and of the protection against evaluation of text."""

import contextlib
import subprocess
import sys

import pytest
import sympy

from mass_jax.tasks.grading.answer import Unreadable
from mass_jax.tasks.grading.symbolic import equal, equal_relations, parse, read_number


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\frac{1}{10^{20}}", r"\frac{2}{10^{20}}"),  # equal for math-verify, since both are nearly 0
        ("0.3333333", r"\frac{1}{3}"),  # equal for math-verify, which rounds to six places
        (r"\sqrt{2}", r"\sqrt{2}+10^{-40}"),
        (r"\sqrt{x^2}", "x"),  # differ for x < 0
        ("R", "r"),
        (r"\ln x^2", r"2\ln x"),
    ],
)
def test_equal_distinguishes_close_expressions(a, b):
    assert not equal(a, b)


def test_equal_relations_needs_positive_factor():
    assert equal_relations(("2x", "6y"), ("x", "3y"), False)
    assert not equal_relations(("-x", "-3y"), ("x", "3y"), False)
    assert equal_relations(("-x", "-3y"), ("x", "3y"), True)


@pytest.mark.parametrize("latex", ["10^{10^{10}}", "9^{9^{9^{9}}}", "99999!", r"\binom{10^9}{10^8}", "(x+1)^{10^6}"])
def test_parse_rejects_huge_numbers(latex):
    with pytest.raises(Unreadable, match="too large"):
        parse(latex)


@pytest.mark.parametrize("text", ["1+1", "x", "__import__('os')", "1e9999", "٣", "0x10", "1_000", "", None])
def test_read_number_rejects_other_text(text):
    with pytest.raises(ValueError):
        read_number(text)


CLOSED = """
import sympy, sys, pathlib
from mass_jax.tasks.grading import symbolic
symbolic.close_evaluator()
text = f"__import__('pathlib').Path({sys.argv[1]!r}).touch()"
attempts = [sympy.sympify, sympy.S, sympy.Number, sympy.Integer, sympy.simplify, sympy.expand, sympy.N,
            lambda t: sympy.Symbol("x") + t, lambda t: sympy.Matrix([t]), lambda t: sympy.Function("f")(t),
            lambda t: sympy.FiniteSet(t), symbolic.parse, lambda t: symbolic.equal("1", t)]
for attempt in attempts:
    try:
        attempt(text)
    except Exception:
        continue
    print("not refused", attempt)
"""


def test_close_evaluator_blocks_sympy(canary):
    done = subprocess.run([sys.executable, "-c", CLOSED, str(canary)], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert not canary.exists()


def test_sympy_evaluates_without_protection(canary):
    with contextlib.suppress(AttributeError):  # the result of the evaluation is not an expression
        sympy.Function("f")(f"__import__('pathlib').Path({str(canary)!r}).touch()")
    assert canary.exists()
