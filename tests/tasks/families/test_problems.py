"""Tests of the families' texts, parser and problem sets."""

import random
import re

import pytest

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.tasks.families import (
    FAMILIES,
    Fact,
    Side,
    draw_problems,
    find,
    open_problems,
    oracle_examples,
    side_of_fact,
)

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


def test_open_problems_separates_seen_and_unseen_families():
    chosen = Config(
        task="families",
        families_train=("addition", "times table"),
        families_test=("ax = c",),
        num_train_problems=40,
        num_eval_problems=20,
    )
    found = open_problems(chosen, seed=0)
    subjects = {name: {problem.subject for problem in problems} for name, problems in found.columns.items()}
    assert list(subjects.items()) == [("unseen", {"ax = c"}), ("seen", {"addition", "times table"})]
    assert {problem.subject for problem in found.train} == {"addition", "times table"}
    assert not {problem.id for problem in found.train} & {problem.id for problem in found.columns["seen"]}


def test_open_problems_keeps_order_within_family():
    few = open_problems(Config(families_train=("words",), num_train_problems=9, num_eval_problems=9), seed=1)
    every = open_problems(Config(num_train_problems=63, num_eval_problems=63), seed=1)
    assert list(every.columns) == ["test"]
    for one, other in ((few.train, every.train), (few.columns["test"], every.columns["test"])):
        assert one == [problem for problem in other if problem.subject == "words"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"families_train": ("aditions",)}, "--families_train='aditions' is unknown; did you mean 'addition'"),
        ({"families_train": ("words",), "families_test": ("words",)}, "words is also in --families_train"),
        ({"families_test": tuple(FAMILIES)}, "names all families"),
    ],
)
def test_open_problems_rejects_choices(chosen, message):
    with pytest.raises(UserError, match=re.escape(message)):
        open_problems(Config(**chosen), seed=0)
