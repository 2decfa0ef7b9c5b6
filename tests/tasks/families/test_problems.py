"""Tests of the families' texts, parser and problem sets."""

import random

import pytest

from mass_jax.errors import UserError
from mass_jax.tasks.families import FAMILIES, Fact, Side, draw_problems, find, oracle_examples, side_of_fact

FORMS = [(name, form) for name, forms in FAMILIES.items() for form in forms]
SIZES = {Side.TRAIN: 700, Side.TEST: 400}


@pytest.mark.parametrize(("name", "form"), FORMS, ids=[f"{name}: {form.text}" for name, form in FORMS])
def test_find_inverts_form_write(name, form):
    for a in form.first:
        for b in form.second:
            fact = Fact(form.operation, a, b)
            assert find(form.write(fact, random.Random(f"{a} {b}"))) == (name, form, fact)


@pytest.mark.parametrize(
    "text", ["", "4 + ", "4 - 9", "0x = 5", "3x = 10", "x + 9 = 4", "4 + 3 = 7", "٤ + 3", "1234567 + 1", "4 + 3\n"]
)
def test_find_rejects_other_texts(text):
    assert find(text) is None


def test_sides_have_disjoint_operands():
    operands = {side: {find(p.problem)[2].operands for p in draw_problems(side, SIZES[side], 0)} for side in Side}
    assert operands[Side.TRAIN].isdisjoint(operands[Side.TEST])
    assert {side_of_fact(Fact("+", *pair)) for pair in operands[Side.TEST]} == {Side.TEST}


def test_draw_problems_alternates_families():
    problems = draw_problems(Side.TEST, 70, seed=3)
    for problem in problems:
        family, form, fact = find(problem.problem)
        assert (family, str(form.answer(fact))) == (problem.subject, problem.answer)
    assert [p.subject for p in problems[:7]] == [*FAMILIES]
    assert len({p.id for p in problems}) == 70
    assert problems == draw_problems(Side.TEST, 70, seed=3) != draw_problems(Side.TEST, 70, seed=4)


def test_oracle_examples_match_family():
    for problem in draw_problems(Side.TRAIN, 21, 0) + draw_problems(Side.TEST, 21, 0):
        examples = oracle_examples(problem, 12, seed=0)
        assert len({e.problem for e in examples} - {problem.problem}) == 12
        for example in examples:
            family, form, fact = find(example.problem)
            assert (family, example.solution) == (problem.subject, str(form.answer(fact)))
            assert side_of_fact(fact) is Side.TRAIN


def test_draw_problems_reports_available_count():
    with pytest.raises(UserError, match=r"100000 test problems requested, but the families have \d+; request fewer"):
        draw_problems(Side.TEST, 100_000, 0)
