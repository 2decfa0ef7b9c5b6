"""The structure of answers, and the screen in front of it."""

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
)
def test_what_is_no_answer_has_a_reason(text, reason):
    with pytest.raises(Unreadable, match=reason):
        read(text)


def test_random_text_gives_a_structure_or_a_reason():
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


def test_braces_close_where_they_should():
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


def test_splitting_keeps_what_is_inside_brackets():
    assert split_top(r"\{1,2\},(3,4],f{5,6}", re.compile(",")) == [r"\{1,2\}", "(3,4]", "f{5,6}"]


@pytest.mark.parametrize(
    "text", [r"\frac12", r"x^{2}+\sqrt3", "10,\\!010", r"\left(1,2\right]", "60^{\\circ}", "50\\%"]
)
def test_normalizing_twice_changes_nothing(text):
    assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [("(0,1]", "[0,1]"), ("(1,2)", "(2,1)"), ("1,2", "(1,2)"), ("1,1,2", "1,2,2"), ("25\\text{ ft}", "25\\text{ m}"),
     ("1010_2", "1010_3"), ("\\text{Monday}", "\\text{dayMon}"), ("0.2", "0.2\\%"), ("x=1", "y=1"), ("10", "10_2")],
)  # fmt: skip
def test_structure_alone_tells_these_apart(gold, answer):
    assert grade_quickly(gold, answer) is not Verdict.RIGHT


@pytest.mark.parametrize(
    "text",
    [r"\pm\in", r"\alpha\in ", r"\text}<\cdot_x^2{", r"\text}{a}", r"\text x}{", "$" * 300, r"\$" * 490, r"5\text"],
)
def test_read_refuses_empty_and_odd_parts(text):
    """Such texts end in a value or in `Unreadable`, however deep the caller's own stack is."""

    def nested(depth):
        return nested(depth - 1) if depth else grade_quickly("12", text)

    assert nested(200) is not Verdict.RIGHT
