"""Tests of the forms of written examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mass_jax.errors import UserError
from mass_jax.tasks import example_form
from mass_jax.tasks.base import Example, Rejected
from mass_jax.tasks.families import FAMILIES, FamiliesTask, Side, draw_problems, find, oracle_examples

TARGET = "x + 19 = 21"


@pytest.mark.parametrize("form", example_form.FORMS)
def test_read_returns_written_example(form):
    example = Example("Calculate 5 - 2.", "3")
    assert example_form.read(example_form.write(example, form), form) == example


@given(st.text(alphabet="Answer: Problem\n3x", max_size=60))
def test_read_never_raises(text):
    for form in example_form.FORMS:
        found = example_form.read(text, form)
        assert found is None or (found.problem and found.solution)


@pytest.mark.parametrize("form", example_form.FORMS)
def test_families_parse_their_own_examples(form):
    task = FamiliesTask(form=form)
    for problem in draw_problems(Side.TRAIN, 70, seed=0, worked=form == "worked"):
        example = Example(problem.problem, problem.solution)
        if problem.problem == TARGET:
            continue
        assert task.parse_example(f" {task.write(example)}\n", TARGET) == example
        assert task.useful(problem, example)
        assert task.verify([problem], [problem.solution])[0].value == "right"
        assert task.final_answer(problem.solution) == problem.answer


def test_families_write_operands_before_results():
    task = FamiliesTask(form="answer_first")
    assert task.write(Example("7x = 28", "4")) == "Answer: 4 Problem: 7x = 28"
    assert task.write(Example("7 * 4", "28")) == "7 * 4 Answer: 28"
    assert task.generator_prompt(TARGET) == (
        "Problem: x + 3 = 8\nSimilar problem: Answer: 7 Problem: x + 2 = 9\n"
        "Problem: 6 * 4\nSimilar problem: 8 * 3 Answer: 24\n"
        "Problem: x + 19 = 21\nSimilar problem:"
    )


def test_families_default_prompts_are_unchanged():
    task = FamiliesTask(num_shots=1)
    assert task.generator_prompt(TARGET) == (
        "Problem: x + 3 = 8\nSimilar problem: x + 2 = 9 Answer: 7\n"
        "Problem: 6 * 4\nSimilar problem: 8 * 3 Answer: 24\n"
        "Problem: x + 19 = 21\nSimilar problem:"
    )
    assert task.scorer_text(TARGET, Example("7 * 4", "28")) == (
        "Problem: x + 19 = 21\nSimilar problem: 7 * 4 Answer: 28"
    )
    assert task.solver_prompt(TARGET) == ("Answer with a number.\n\n4 + 3\n\nAnswer: 7\n\nx + 19 = 21\n\nAnswer: ")
    assert isinstance(task.parse_example("Answer: 4 Problem: 7x = 28", TARGET), Rejected)


def test_worked_solutions_show_a_true_step():
    worked = {p.id: p for p in draw_problems(Side.TRAIN, 140, seed=0, worked=True)}
    plain = draw_problems(Side.TRAIN, 140, seed=0)
    assert [p.problem for p in plain] == [p.problem for p in worked.values()]
    for problem in plain:
        left, _, right = worked[problem.id].solution.partition(" = ")
        a, sign, b = left.split()
        results = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) // int(b)}
        assert results[sign] == int(right) == int(problem.answer)
        assert worked[problem.id].answer == problem.answer
    example = oracle_examples(plain[0], 1, seed=0, worked=True)[0]
    assert " = " in example.solution
    assert {find(p.problem)[0] for p in plain} == set(FAMILIES)


def test_worked_responses_count_by_their_result():
    task = FamiliesTask(num_shots=1, form="worked")
    problem = draw_problems(Side.TRAIN, 1, seed=0)[0]
    verdicts = task.verify([problem] * 3, [f"9 + 9 = {problem.answer}", "9 + 9 = 9999", problem.answer])
    assert [verdict.value for verdict in verdicts] == ["right", "wrong", "right"]
    assert "4 + 3 = 7" in task.solver_prompt(TARGET)
    assert not task.useful(problem, Example(problem.problem, f"9 + 9 = {problem.answer}"))


def test_refuse_other_forms_names_the_accepted_ones():
    with pytest.raises(UserError, match="--example_form=worked does not apply to --task=math; use question_first"):
        example_form.refuse_other_forms("worked", "math")
    example_form.refuse_other_forms("answer_first", "reasoning_gym", "answer_first")
