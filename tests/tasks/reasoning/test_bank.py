"""Tests of drawing problems: disjoint sides, determinism, errors."""

import pytest

from mass_jax.errors import UserError
from mass_jax.tasks.reasoning.bank import Bank, Side, interleaved, side_of_question

FAMILIES = ("chain_sum", "spell_backward", "syllogism")


def need(count, families=FAMILIES):
    return dict.fromkeys(families, count)


def texts(drawn):
    return {family: [problem.problem for problem in problems] for family, problems in drawn.items()}


def test_sides_are_disjoint_over_seeds():
    bank = Bank("easy")
    train = [texts(bank.draw(need(10), Side.TRAIN, 40, seed)) for seed in (0, 1)]
    test = texts(bank.draw(need(10), Side.TEST, 40))
    for family in FAMILIES:
        shown = {*train[0][family], *train[1][family]}
        assert shown.isdisjoint(test[family])
        assert len(set(test[family])) == len(test[family]) >= 10
        assert {side_of_question(text) for text in test[family]} == {Side.TEST}


def test_draw_depends_on_seed_only(monkeypatch):
    first = Bank("easy").draw(need(5), Side.TRAIN, 5, 3)
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    again = Bank("easy").draw(need(5, reversed(FAMILIES)), Side.TRAIN, 5, 3)
    assert {family: again[family] for family in FAMILIES} == first
    assert texts(Bank("easy").draw(need(5), Side.TRAIN, 5, 4)) != texts(first)


def test_draw_leaves_out_hidden_and_long_problems():
    hidden = frozenset(texts(Bank("easy").draw({"chain_sum": 3}, Side.TRAIN, 3))["chain_sum"])
    bank = Bank("easy", lambda problem: len(problem.answer) == 1, hidden)
    drawn = bank.draw({"chain_sum": 5}, Side.TRAIN, 5)["chain_sum"]
    assert all(len(problem.answer) == 1 and problem.problem not in hidden for problem in drawn)
    assert bank.scored.keys() == {problem.id for problem in drawn}


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("chainsum", "reasoning-gym has no family 'chainsum'; did you mean 'chain_sum'? Known: ab, "),
        (
            "countdown",
            "family 'countdown' cannot be used: its problems have no text answer that reasoning-gym scores 1",
        ),
        ("graph_color", "family 'graph_color' cannot be used"),
        ("coin_flip", "distinct train problems that fit at --reasoning_level=easy, 60 are needed; request fewer"),
    ],
)
def test_draw_names_unusable_families(family, message, monkeypatch):
    monkeypatch.setattr("mass_jax.tasks.reasoning.bank._ROUNDS", 2)  # each round starts a process
    with pytest.raises(UserError) as caught:
        Bank("easy").draw({family: 60}, Side.TRAIN, 60)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_interleaved_takes_families_in_turn():
    assert interleaved({"a": [1, 2, 3], "b": [4]}, 3) == [1, 4, 2]
