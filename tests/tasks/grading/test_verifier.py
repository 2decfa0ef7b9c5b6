"""Tests of the verifier on labeled answer pairs and hostile answers."""

import pytest

from mass_jax.tasks.base import Verdict


def disagreements(verifier, pairs):
    """Returns the incorrect answers that are accepted, and the correct ones that are not."""
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


def test_verifier_agrees_with_sampled_pairs(verifier, pairs):
    few = pairs[::9]
    rights, others = disagreements(verifier, few)
    assert not rights
    assert len(others) <= 0.02 * len(few), others


@pytest.mark.slow
def test_verifier_agrees_with_all_pairs(verifier, pairs):
    assert len(pairs) >= 400
    rights, others = disagreements(verifier, pairs)
    assert not rights
    assert len(others) <= 0.02 * len(pairs), others


def test_verifier_rejects_hostile_answers(verifier, hostile, canary):
    few = hostile[::5]
    verdicts = verifier.verify(["4321"] * len(few), few)
    assert Verdict.RIGHT not in verdicts
    assert not canary.exists()


@pytest.mark.slow
@pytest.mark.parametrize("gold", ["4321", r"\sqrt{4321}", "(43,21)", "x=4321"])
def test_verifier_rejects_all_hostile_answers(verifier, pool, hostile, canary, gold):
    assert len(hostile) >= 60
    for answer in hostile:
        assert verifier.submit(gold, answer).result() is not Verdict.RIGHT, answer[:80]
        assert pool.submit(r"\sqrt{12}", r"2\sqrt{3}").result() is Verdict.RIGHT
    assert not canary.exists()


def test_submit_decides_plain_answers_immediately(verifier):
    responses = [r"\boxed{42}", r"\boxed{\frac{84}{2}}", r"\boxed{43}", "(", "", r"\boxed{\text{no}}"]
    futures = [verifier.submit("42", response) for response in responses]
    assert all(future.done() for future in futures)
    right, wrong, unparsable = Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE
    assert [future.result() for future in futures] == [right, right, wrong, unparsable, unparsable, wrong]


def test_pool_agrees_with_verifier(verifier, pool, pairs):
    few = [(gold, answer) for gold, answer, _ in pairs[::25]]
    boxed = [rf"\boxed{{{answer}}}" for _, answer in few]
    assert pool.verify(few) == verifier.verify([gold for gold, _ in few], boxed)
