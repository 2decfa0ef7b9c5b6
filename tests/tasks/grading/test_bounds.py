"""Tests of the time that grading one answer takes in the caller's process, for arbitrary text."""

import gc
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.answer import read
from mass_jax.tasks.grading.grade import grade_quickly
from mass_jax.tasks.grading.units import split_unit
from mass_jax.tasks.grading.values import MAX_ANSWER_CHARS, Unreadable

SECONDS = 0.05  # CPU time of this thread, which does not depend on the load of the machine
WORDS = "so then the last player takes every coin left on that long wooden table before noon and walks away".split()
PIECES = [
    *(f"{word} " for word in WORDS), *"0123456789xyAI.,;:=<>()[]{}|^_+-*/!%$~'& \t\n", "cm ", "million ", "per ", "2e3",
    r"\frac", r"\sqrt", r"\text{", r"\text{ and }", r"\{", r"\}", r"\\", r"\,", r"\!", "{,}", r"\ne ", r"\approx ",
    r"\cup ", r"\pm", r"\setminus ", r"\mathbb{R}", r"\begin{pmatrix}", r"\end{pmatrix}", r"\boxed{", r"\degree ",
    "π", "√", "²", "—", "é", "٣", "𝟘", "\u2009", "C_5^2", "1,234", "(1,", ",2)", "12:00",
]  # fmt: skip
PIECE = st.sampled_from(PIECES)


def seconds_of(gold, text):
    read.cache_clear()
    gc.disable()  # a collection of the objects of all tests takes longer than the limit
    try:
        start = time.thread_time()
        grade_quickly(gold, text)
        return time.thread_time() - start
    finally:
        gc.enable()


@st.composite
def texts(draw):
    """Random pieces, possibly repeated and inside nested brackets."""
    unit = "".join(draw(st.lists(PIECE, min_size=1, max_size=30)))
    depth = draw(st.integers(0, 12))
    opened, closed = draw(st.sampled_from([("(", ")"), ("{", "}"), ("[", "]"), (r"\{", r"\}"), ("(1,", ",2)")]))
    room = MAX_ANSWER_CHARS - depth * len(opened + closed)
    times = draw(st.integers(1, max(1, room // len(unit))))
    return opened * depth + (unit * times)[:room] + closed * depth


@settings(max_examples=300, deadline=None)
@given(texts(), st.sampled_from(["42", r"\sqrt{2}", "(1,2)", "x=3", r"\text{Monday}"]))
@example("1 " + " ".join(WORDS * 9), "2/3")
@example("(1," * 10 + "=x" * 450 + ")" * 10, "1")
@example(",".join(f"(1,1,1,{n})" for n in range(64)), ",".join(f"(1,1,1,{n})" for n in range(1, 65)))
@example(",".join(f"{n}cm" for n in range(64)), ",".join(f"{n}mm" for n in range(64)))
def test_grade_quickly_takes_bounded_time(text, gold):
    assert seconds_of(gold, text[:MAX_ANSWER_CHARS]) < SECONDS


@settings(max_examples=60, deadline=None)
@given(texts())
def test_grade_quickly_bounds_self_comparison(text):
    assert seconds_of(text, text) < SECONDS


@settings(max_examples=30, deadline=None)
@given(st.lists(PIECE, min_size=1, max_size=40), st.integers(MAX_ANSWER_CHARS + 1, 100_000))
def test_read_rejects_long_text_quickly(pieces, size):
    text = ("".join(pieces) * size)[:size]
    assert seconds_of("42", text) < SECONDS
    assert grade_quickly("42", text) is Verdict.UNPARSABLE
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize("words", [2, 8, 19, 150])
def test_split_unit_takes_linear_time(words):
    prose = " ".join((WORDS * 10)[:words])
    start = time.thread_time()
    split_unit(f"1 {prose} (1/2) * P(A)")
    split_unit(f"1 {prose}")
    assert time.thread_time() - start < SECONDS / 10
