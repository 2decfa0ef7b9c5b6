"""Agreement on answer pairs of our own making, and what a response's final answer is."""

import pytest

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.answer import Unreadable
from mass_jax.tasks.math import final_answer


def disagreements(verifier, pairs):
    """(false rights, false others) among pairs."""
    verdicts = verifier.verify([gold for gold, _, _ in pairs], [rf"\boxed{{{answer}}}" for _, answer, _ in pairs])
    rights = [
        (gold, answer)
        for (gold, answer, right), v in zip(pairs, verdicts, strict=True)
        if v is Verdict.RIGHT and not right
    ]
    others = [
        (gold, answer)
        for (gold, answer, right), v in zip(pairs, verdicts, strict=True)
        if v is not Verdict.RIGHT and right
    ]
    return rights, others


def test_a_sample_of_pairs(verifier, pairs):
    few = pairs[::9]
    rights, others = disagreements(verifier, few)
    assert not rights
    assert len(others) <= 0.02 * len(few), others


@pytest.mark.slow
def test_all_pairs(verifier, pairs):
    assert len(pairs) >= 400
    rights, others = disagreements(verifier, pairs)
    assert not rights
    assert len(others) <= 0.02 * len(pairs), others


def test_every_hostile_answer_is_settled_and_none_is_right(verifier, hostile, canary):
    few = hostile[::5]
    verdicts = verifier.verify(["4321"] * len(few), few)
    assert Verdict.RIGHT not in verdicts
    assert not canary.exists()


@pytest.mark.slow
@pytest.mark.parametrize("gold", ["4321", r"\sqrt{4321}", "(43,21)", "x=4321"])
def test_all_hostile_answers(verifier, pool, hostile, canary, gold):
    assert len(hostile) >= 60
    for answer in hostile:
        assert verifier.submit(gold, answer).result() is not Verdict.RIGHT, answer[:80]
        assert pool.submit(r"\sqrt{12}", r"2\sqrt{3}").result() is Verdict.RIGHT
    assert not canary.exists()


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"First \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"so \fbox{7}", "7"),
        (r"so $\boxed 7$", "7"),
        ("24 + 48 = 72\n#### 72", "72"),
        ("#### 1\n#### 2\nthanks", "2"),
        ("Well.\nThe answer is: **3.5**.\nBye.", "3.5"),
        ("The final answer is $x^2$", "$x^2$"),
        ("12", "12"),
    ],
)
def test_final_answer(response, answer):
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    "response", ["a\nb", r"cut off: \boxed{\frac{1}{2}", r"\boxed{1} or \boxed{2", "x" * 200_000, "1\n2\n3"]
)
def test_no_final_answer(response, verifier):
    with pytest.raises(Unreadable):
        final_answer(response)
    assert verifier.verify(["1"], [response]) == [Verdict.UNPARSABLE]


def test_plain_answers_need_no_worker(verifier):
    responses = [r"\boxed{42}", r"\boxed{\frac{84}{2}}", r"\boxed{43}", "(", "", r"\boxed{\text{no}}"]
    futures = [verifier.submit("42", response) for response in responses]
    assert all(future.done() for future in futures)
    right, wrong, unparsable = Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE
    assert [future.result() for future in futures] == [right, right, wrong, unparsable, unparsable, wrong]


def test_a_worker_gives_the_same_verdict_as_the_short_way(verifier, pool, pairs):
    few = [(gold, answer) for gold, answer, _ in pairs[::25]]
    boxed = [rf"\boxed{{{answer}}}" for _, answer in few]
    assert pool.verify(few) == verifier.verify([gold for gold, _ in few], boxed)
