"""Gates: each rejects its own kind of fault and accepts ordinary examples."""

import dataclasses
import time

import pytest

from mass_jax.serving.guards.gates import (
    AnswerCheck,
    Calibration,
    Candidate,
    Copy,
    Duplicates,
    GateResult,
    Length,
    Parse,
    run_gates,
)
from mass_jax.tasks.base import Example, Rejected


def candidate(problem="2 kabo 5", solution="0 7", **known):
    return Candidate(f"{problem} = {solution}", Example(problem, solution), tokens=6, **known)


GOOD = [candidate(f"{i} kabo 5", f"0 {i}", nll=0.5, agreement=0.4) for i in range(6)]
ALL = [Length(max_tokens=12), Parse(), Copy(), Duplicates(), AnswerCheck(), Calibration(real_nll=[0.3, 0.6])]


def passed(gate, candidates, problem="4 kabo 3"):
    return [verdict.passed for verdict in gate.judge(problem, candidates)]


def test_run_gates_accepts_ordinary_examples():
    verdicts = run_gates(ALL, "4 kabo 3", GOOD)
    assert all(verdict.passed for each in verdicts for verdict in each.values())
    assert verdicts[0]["calibration"][:3] == (True, 0.5, pytest.approx(1.1))
    assert list(verdicts[0]) == ["length", "parse", "copy", "duplicates", "answer", "calibration"]


@pytest.mark.parametrize(
    ("text", "tokens", "fits"),
    [("", 0, False), (" \n", 0, False), ("x", 12, True), ("x", 13, False), ("x" * 20_001, 1, False)],
)
def test_length_limits_tokens_and_characters(text, tokens, fits):
    assert passed(Length(max_tokens=12), [Candidate(text, Rejected(""), tokens)]) == [fits]


def test_parse_requires_an_example():
    assert passed(Parse(), [candidate(), Candidate("?", Rejected("no problem found"), 1)]) == [True, False]


@pytest.mark.parametrize(
    ("posed", "copied"),
    [
        ("4 kabo 3", True),
        ("4  KABO 3 ", True),
        ("４ kabo ３", True),  # full-width digits
        ("so 4 kabo 3 is what", True),
        ("4 kabo 31", False),
        ("3 kabo 4", False),
        ("4 kabo", False),
    ],
)
def test_copy_rejects_copies_of_target(posed, copied):
    assert passed(Copy(), [candidate(posed), Candidate(f"x {posed}", Rejected("odd"), 5)]) == [not copied] * 2


def test_copy_rejects_near_copies():
    target = "Tom has three red apples and buys four more of them at the market today. How many has he?"
    assert passed(Copy(max_similarity=0.5), [candidate(target.replace("red", "green"))], target) == [False]
    assert passed(
        Copy(max_similarity=0.5), [candidate("Ann sells nine pears. How many are left to her now?")], target
    ) == [True]


def test_comparing_gates_reject_long_texts():
    long = candidate("7 kabo " * 4000)
    assert passed(Copy(), [long, GOOD[0]]) == [False, True]
    found = Duplicates().judge("4 kabo 3", [*GOOD, long])
    assert [verdict.passed for verdict in found] == [True] * 6 + [False]
    assert found[-1].reason == "too long to compare"


@pytest.mark.parametrize("text", ["\u0301\u0323" * 10_000, "\ufdfa" * 20_000, "e\u0301" * 10_000, "1a" * 10_000])
def test_copy_takes_linear_time(text):
    began = time.thread_time()
    assert passed(Copy(), [candidate(text)]) in ([True], [False])
    assert time.thread_time() - began < 0.5  # normalizing a run of combining marks took minutes


def test_copy_normalizes_composed_letters():
    assert passed(Copy(), [candidate("4 caf\u00e9 3")], "4 cafe\u0301 3") == [False]


def test_duplicates_requires_diversity():
    four = [*GOOD[:3], candidate("0  KABO 5", "0 9")]
    assert passed(Duplicates(), four) == [True, True, True, False]
    assert passed(Duplicates(), [GOOD[0]] * 6) == [False] * 6
    assert passed(Duplicates(min_distinct=3), GOOD[:2]) == [False] * 2
    same = [candidate(f"{i} kabo 5", "0 7") for i in range(6)]
    assert passed(Duplicates(), same) == [False] * 6
    unparsed = [Candidate("junk", Rejected("odd"), 1)] * 2
    assert passed(Duplicates(), [*GOOD[:3], *unparsed]) == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("known", "right"),
    [
        ({"recomputed": True, "agreement": 0.0}, True),
        ({"recomputed": False, "agreement": 1.0}, False),
        ({"agreement": 0.05}, True),
        ({"agreement": 0.04}, False),
        ({}, False),
    ],
)
def test_answer_check_requires_agreement(known, right):
    assert passed(AnswerCheck(min_agreement=0.05), [candidate(**known)]) == [right]


@pytest.mark.parametrize(("nll", "usual"), [(1.1, True), (1.2, False), (float("nan"), False), (None, False)])
def test_calibration_limits_loss(nll, usual):
    assert passed(Calibration(margin=0.5, real_nll=[0.1, 0.61]), [candidate(nll=nll)]) == [usual]


def test_calibration_needs_real_examples():
    assert passed(Calibration(), GOOD) == [False] * 6


@dataclasses.dataclass
class Faulty:
    name = "faulty"
    verdicts: list | None

    def judge(self, problem, candidates):
        if self.verdicts is None:
            raise RuntimeError(candidates[0].text)
        return self.verdicts


@pytest.mark.parametrize(
    "verdicts", [None, [], [True], [True] * 6, [GateResult(True, "0.5")] * 6, [GateResult(True, reason=None)] * 6]
)
def test_failing_gate_rejects_without_quoting(verdicts):
    found = run_gates([Faulty(verdicts)], "4 kabo 3", GOOD)
    assert not any(each["faulty"].passed for each in found)
    assert "kabo" not in found[0]["faulty"].reason
