"""Tests of the parser for synthetic examples in imperfect text."""

import random

import pytest

from mass_jax.tasks.base import Example, Rejected
from mass_jax.tasks.math.parse import parse_example

TARGET = "A train travels 60 miles in 2 hours. What is its speed?"
PROBLEM, SOLUTION = "What is 2 + 3?", r"We add: \boxed{5}."


@pytest.mark.parametrize(
    "text",
    [
        f"Problem: {PROBLEM}\nSolution: {SOLUTION}",
        f"Sure! Here is one.\n\n**Problem:** {PROBLEM}\n\n**Solution:**\n{SOLUTION}",
        f"### Problem 1:\n{PROBLEM}\n### Solution:\n{SOLUTION}\n",
        f"1. Question: {PROBLEM}\n   Answer: {SOLUTION}",
        f"problem : {PROBLEM}\r\nSOLUTION : {SOLUTION}",
        f"Practice Problem: {PROBLEM}\nSolution: {SOLUTION}\n---\n",
        f"Problem: {PROBLEM}\nSolution: {SOLUTION}\n\nProblem: What is 4 + 4?\nSolution: \\boxed{{8}}",
        f"Problem: {PROBLEM}\nSolution: {SOLUTION}\n**Problem 2:** and then it st",
    ],
)
def test_parse_example_accepts_variants(text):
    assert parse_example(text, TARGET) == Example(PROBLEM, SOLUTION)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no problem found"),
        ("I cannot do that.", "no problem found"),
        ("The problem is hard and so is the solution.", "no problem found"),
        (f"Problem: {PROBLEM}", "no solution found"),
        (f"Solution: {SOLUTION}\nProblem: {PROBLEM}", "no solution found"),
        (f"Problem:\nSolution: {SOLUTION}", "empty problem"),
        (f"Problem: {PROBLEM}\nSolution:", "empty solution"),
        (f"Problem: 2\nSolution: {SOLUTION}", "problem too short"),
        (f"Problem: {PROBLEM}\nSolution: We add two and three and", "no final answer"),
        (f"Problem: {PROBLEM}\nSolution: so \\boxed{{\\frac{{1}}{{2}}", "cut off"),
        (f"Problem: {TARGET.upper()}\nSolution: {SOLUTION}", "copies the target problem"),
    ],
)
def test_parse_example_names_missing_part(text, reason):
    assert parse_example(text, TARGET) == Rejected(reason)


def test_parse_example_rejects_reworded_copy():
    text = f"Problem: What is $6 \\cdot 7$?\nSolution: {SOLUTION}"
    assert parse_example(text, r"Compute $6 \cdot 7$.") == Rejected("copies the target problem")


def test_parse_example_survives_random_text():
    rng = random.Random(0)
    pieces = [
        "Problem:",
        "Solution:",
        "\n",
        "\\boxed{",
        "}",
        "**",
        "#",
        "1.",
        " ",
        "x",
        "\x00",
        "é",
        "\ud800",
        "...",
        ":",
    ]
    for _ in range(2000):
        text = "".join(rng.choices(pieces, k=rng.randrange(30)))
        assert isinstance(parse_example(text, TARGET), Example | Rejected)


@pytest.mark.parametrize(
    "piece", ["Problem:", "* ", "#", "\n", "problem ", "\\boxed{", "Problem:\nSolution:\n", "  _-"]
)
def test_parse_example_rejects_floods(piece):
    assert isinstance(parse_example(piece * 200_000, TARGET), Rejected)
