"""Tests of the parser for the structure of answers."""

import contextlib
import random
import re

import pytest

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.answer import Unreadable, read
from mass_jax.tasks.grading.grade import grade_quickly
from mass_jax.tasks.grading.latex import closing_brace, last_boxed, normalize, split_top


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("1" * 1001, "too long"),
        ("1" * 500, "too many digits"),
        ("٤٢", "unknown characters"),
        ("4\u200b2", "unknown characters"),
        ("__import__", "unknown characters"),
        ('f("x")', "unknown characters"),
        ("(" * 30 + "1" + ")" * 30, "too deep"),
        ("(1", "unbalanced brackets"),
        (r"\input{x}", "unknown command"),
        ("abcdefghijkl+1", "words in an expression"),
        (",".join("1" * 100), "too many items"),
        (r"\begin{pmatrix}1&2\\3\end{pmatrix}", "rows of a matrix differ"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_read_names_reason(text, reason):
    with pytest.raises(Unreadable, match=reason):
        read(text)


def test_read_survives_random_text():
    rng = random.Random(0)
    commands = (
        r"\in \mathbb{R} \setminus \approx \ne \langle \text{ \ldots million : \frac"
        r" \sqrt \text{ \cup \pm \begin{pmatrix} \end{pmatrix} \\ & \{ \} \infty \le and cm \degree \boxed{"
    )
    pieces = [*"0123456789xyi+-*/^_=<>|.,:;!%$ (){}[]", *commands.split()]
    for _ in range(10_000):
        text = "".join(rng.choices(pieces, k=rng.randrange(15)))
        with contextlib.suppress(Unreadable):
            read(text)


def test_closing_brace_matches_nesting():
    rng = random.Random(1)
    for _ in range(500):
        depth, text = 1, "{"
        while depth:
            char = rng.choice(["{", "}", "}", "x", "\\{", "\\}", "\\\\"])
            depth += (char == "{") - (char == "}")
            text += char
        assert closing_brace(text + "}{", 0) == len(text) - 1
        assert last_boxed("a \\boxed" + text + "}") == text[1:-1].strip()
        assert closing_brace(text[:-1], 0) is None


def test_split_top_keeps_brackets_whole():
    assert split_top(r"\{1,2\},(3,4],f{5,6}", re.compile(",")) == [r"\{1,2\}", "(3,4]", "f{5,6}"]


@pytest.mark.parametrize(
    "text", [r"\frac12", r"x^{2}+\sqrt3", "10,\\!010", r"\left(1,2\right]", "60^{\\circ}", "50\\%"]
)
def test_normalize_is_idempotent(text):
    assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [("(0,1]", "[0,1]"), ("(1,2)", "(2,1)"), ("1,2", "(1,2)"), ("1,1,2", "1,2,2"), ("25\\text{ ft}", "25\\text{ m}"),
     ("1010_2", "1010_3"), ("\\text{Monday}", "\\text{dayMon}"), ("0.2", "0.2\\%"), ("x=1", "y=1"), ("10", "10_2")],
)  # fmt: skip
def test_grade_quickly_distinguishes_structures(gold, answer):
    assert grade_quickly(gold, answer) is not Verdict.RIGHT


@pytest.mark.parametrize(
    "text",
    [r"\pm\in", r"\alpha\in ", r"\text}<\cdot_x^2{", r"\text}{a}", r"\text x}{", "$" * 300, r"\$" * 490, r"5\text"],
    ids=lambda text: repr(text)[:20],
)
def test_read_survives_malformed_parts(text):
    """Malformed text gives a value or `Unreadable`, also if the caller's stack is deep."""

    def nested(depth):
        return nested(depth - 1) if depth else grade_quickly("12", text)

    assert nested(200) is not Verdict.RIGHT


@pytest.mark.parametrize(
    "word", ["ppm", "basis points", "giga", "milliarden", "tripled", "pounds owed", "nil", "grand"]
)
def test_word_that_changes_the_value_is_no_unit(word):
    assert grade_quickly("14", f"14 {word}") is not Verdict.RIGHT
    assert grade_quickly("14", f"14 red {word}") is not Verdict.RIGHT


@pytest.mark.parametrize("word", ["marbles", "red beds", "bananas"])
def test_plain_noun_may_be_left_out(word):
    assert grade_quickly("14", f"14 {word}") is Verdict.RIGHT


def test_missing_value_equals_nothing():
    assert grade_quickly("nan", "NaN") is Verdict.WRONG
    assert grade_quickly("-NaN", "-NaN") is Verdict.WRONG
