"""Tests on correct answers in unusual notation and similar incorrect ones.

`near_misses.jsonl` has both for each kind of error: scale words, units, E-notation, chains, undefined values, names,
thin spaces, ASCII signs, inequalities, approximations, vectors, logarithms and combinations.
"""

import collections
import json
import pathlib

import pytest

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.grade import grade_quickly

ROWS = [
    json.loads(line) for line in (pathlib.Path(__file__).parent / "near_misses.jsonl").read_text("utf-8").splitlines()
]
KINDS = sorted({row["kind"] for row in ROWS})


@pytest.mark.parametrize("kind", KINDS)
def test_pool_distinguishes_near_misses(kind, pool):
    rows = [row for row in ROWS if row["kind"] == kind]
    verdicts = pool.verify([(row["gold"], row["answer"]) for row in rows])
    wrong = [
        (row["gold"], row["answer"], verdict.value)
        for row, verdict in zip(rows, verdicts, strict=True)
        if (verdict is Verdict.RIGHT) != row["right"]
    ]
    assert not wrong


def test_grade_quickly_matches_labels():
    for row in ROWS:
        verdict = grade_quickly(row["gold"], row["answer"])
        assert verdict is None or (verdict is Verdict.RIGHT) == row["right"], row


def test_grade_quickly_decides_most_near_misses():
    verdicts = collections.Counter(grade_quickly(row["gold"], row["answer"]) is None for row in ROWS)
    assert verdicts[False] > 0.5 * len(ROWS)
