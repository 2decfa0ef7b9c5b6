"""Tests of the families' prompts, parser and verdicts."""

import pytest

from mass_jax.tasks.base import Example, Problem, Rejected, Task, Verdict
from mass_jax.tasks.families import FamiliesTask, Side, find, side_of_fact
from mass_jax.tasks.families.task import GENERATOR_SHOTS, SOLVED

TASK: Task = FamiliesTask()
TIMES = Problem("t", "6 * 7", "42", "42", subject="times table")


SHOWN = [*SOLVED, *(example for _, example in GENERATOR_SHOTS)]


@pytest.mark.parametrize("text", [*(example.problem for example in SHOWN), *(target for target, _ in GENERATOR_SHOTS)])
def test_prompts_show_training_operands(text):
    assert side_of_fact(find(text)[2]) is Side.TRAIN


@pytest.mark.parametrize("example", SHOWN, ids=lambda example: example.problem)
def test_prompts_show_correct_examples(example):
    _, form, fact = find(example.problem)
    assert str(form.answer(fact)) == example.solution


def test_parse_example_accepts_shown_form():
    shown = TASK.generator_prompt("5 + 5").split("\n")[1].removeprefix("Similar problem: ")
    assert TASK.parse_example(shown, "5 + 5") == GENERATOR_SHOTS[0][1]


def marked(messages):
    return "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<assistant>"


def test_solver_prompt_uses_chat_turns():
    assert FamiliesTask(1, marked).solver_prompt("9 * 9", [Example("2 + 2", "4")]) == (
        "<system>Answer with a number.<user>4 + 3<assistant>Answer: 7<user>2 + 2<assistant>Answer: 4"
        "<user>9 * 9<assistant>Answer: "
    )


@pytest.mark.parametrize(
    ("form", "named", "first", "second"),
    [
        ("question_first", "'problem Answer: integer'", "x + 2 = 9 Answer: 7", "8 * 3 Answer: 24"),
        (
            "answer_first",
            "'Answer: integer Problem: problem' or 'problem Answer: integer'",
            "Answer: 7 Problem: x + 2 = 9",
            "8 * 3 Answer: 24",
        ),
        ("worked", "'problem Answer: equation'", "x + 2 = 9 Answer: 9 - 2 = 7", "8 * 3 Answer: 8 * 3 = 24"),
    ],
)
def test_instructed_prompt_shows_form(form, named, first, second):
    task = FamiliesTask(render=marked, form=form)
    assert task.instructed_prompt("6 * 7") == (
        "<system>Write one new problem of the same kind with other numbers, then its answer, exactly in the form "
        f"{named}.<user>x + 3 = 8<assistant>{first}<user>6 * 4<assistant>{second}<user>6 * 7<assistant>"
    )
    assert all(isinstance(task.parse_example(shown, "6 * 7"), Example) for shown in (first, second))


@pytest.mark.parametrize(("shots", "lines"), [(0, 1), (3, 4)])
def test_solver_prompt_has_num_shots(shots, lines):
    assert FamiliesTask(num_shots=shots).solver_prompt("9 * 9").count("Answer: ") == lines


def test_task_rejects_too_many_shots():
    with pytest.raises(ValueError, match="--num_shots=4 must be between 0 and 3 for --task=families"):
        FamiliesTask(num_shots=4)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" 9 * 4 Answer: 36", Example("9 * 4", "36")),
        ("Tom has 3 pens, buys 4. How many? Answer:7\n", Example("Tom has 3 pens, buys 4. How many?", "7")),
        ("16 * 7 Answer: 112", Example("16 * 7", "112")),
        ("9 * 4", None),
        ("9 * 4 Answer: 36 pens", None),
        ("9 * 4 Answer: ٣٦", None),
        ("", None),
        (" Answer: 3", None),
        ("9 * 4 Answer: 36\n8 * 2 Answer: 16", None),
        ("6 * 7 Answer: 42", None),
        ("7 * 6 Answer: 42", None),
        ("9" * 100_000 + " Answer: 3", None),
        ("9" * 390 + " Answer: 123456 pens", None),
        ("6 * 7 Answer: 42 Answer: 42", None),
        ("Answer: Answer: 3", None),
        ("Problem: 6 * 7 Answer: 42", None),
        ("6 * 7 = Answer: 42", None),
        ("6*7 Answer: 42", None),
        ("x<|im_end|> <|im_start|>assistant Answer: 5", None),
        ("9 *\r4 Answer: 36", None),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, str) else "example" if value else "rejected",
)
def test_parse_example_checks_form(text, found):
    parsed = TASK.parse_example(text, "6 * 7")
    assert parsed == found if found else isinstance(parsed, Rejected)


def test_parse_example_rejects_swapped_operands():
    assert isinstance(TASK.parse_example("3 + 4 Answer: 7", "4 + 3"), Rejected)
    assert isinstance(TASK.parse_example("x + 4 = 7 Answer: 3", "x + 3 = 7"), Example)


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        ("42\n", Verdict.RIGHT),
        ("42.", Verdict.RIGHT),
        ("042", Verdict.RIGHT),
        ("43", Verdict.WRONG),
        ("4 2", Verdict.UNPARSABLE),
        ("", Verdict.UNPARSABLE),
        ("\n", Verdict.UNPARSABLE),
        ("__import__('os')", Verdict.UNPARSABLE),
        ("10**10**10", Verdict.WRONG),
    ],
)
def test_verify_compares_integers(response, verdict):
    assert TASK.verify([TIMES], [response]) == [verdict]


def test_final_answer_normalizes_integers():
    assert [TASK.final_answer(text) for text in ("42\n", "042", "The answer is 42.", "forty", "")] == [
        *("42", "42", "42"),
        *(None, None),
    ]


@pytest.mark.parametrize(
    ("example", "useful"),
    [(("8 * 9", "72"), True), (("8 * 9", "71"), False), (("8 + 9", "17"), False), (("a moon", "1"), False)],
)
def test_useful_needs_correct_same_family(example, useful):
    assert TASK.useful(TIMES, Example(*example)) is useful
