"""Tests of the testbed's parser and verifier."""

import pytest

from mass_jax.tasks.base import Example, Problem, Rejected, Verdict
from mass_jax.tasks.testbed import Domain, OperatorTask

TARGET = "7 zomu 4"


@pytest.fixture(scope="module")
def task():
    return OperatorTask(Domain.generate(seed=11))


def test_parse_example_drops_plan(task):
    assert task.parse_example("careful loda sum ; 2 zomu 8 = 1 0", TARGET) == Example("2 zomu 8", "1 0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "careful loda sum ; 2 zomu 8 = 1",
        "careful loda sum ; 2 zomu 8 = 1 0 0",
        "careful loda ; 2 zomu 8 = 1 0",
        "2 zomu 8 = 1 0",
        "careful loda sum ; 2 zomu 8 = __import__('os')",
        "x" * 100_000,
        "careful loda sum ; 2 zomu ٨ = 1 0",
    ],
    ids=lambda text: text[:50] or "empty",
)
def test_parse_example_rejects_other_forms(task, text):
    parsed = task.parse_example(text, TARGET)
    assert isinstance(parsed, Rejected)
    assert "form" in parsed.reason


def test_parse_example_rejects_copy(task):
    assert task.parse_example("careful loda sum ; 7 zomu 4 = 1 1", TARGET) == Rejected("copies the target problem")


def test_verify_separates_verdicts(task):
    problem = Problem("p", TARGET, "1 1", "1 1")
    responses = ["1 1", "11", " 1 1 ", "1 2", "1", "1 1 1", "", "one one"]
    right, wrong, unparsable = Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE
    expected = [right, right, right, wrong, unparsable, unparsable, unparsable, unparsable]
    assert task.verify([problem] * len(responses), responses) == expected
