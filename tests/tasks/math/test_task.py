"""Tests of the mathematics prompts and task."""

import functools
import pathlib
import random

import pytest

import mass_jax
from mass_jax.tasks.base import Example, Problem, Rejected, Task, Verdict
from mass_jax.tasks.chat import render
from mass_jax.tasks.math import MathTask, Shots
from mass_jax.tasks.math.prompts import INSTRUCT, generator_messages, solver_messages

SHOT = Example("What is 1 + 2?", r"It is \boxed{3}.")
SHOTS = Shots(solved=(SHOT,), generator=(("What is 5 + 5?", SHOT),))


@pytest.fixture
def task(verifier) -> Task:
    return MathTask(verifier)


def test_messages_alternate_roles():
    for messages in (solver_messages, generator_messages, functools.partial(generator_messages, request=INSTRUCT)):
        assert [m["role"] for m in messages("Q?")] == ["user"]
        assert [m["role"] for m in messages("Q?", SHOTS)] == ["user", "assistant", "user"]
        assert messages("Q?", SHOTS)[-1] == messages("Q?")[-1]
        assert "Q?" in messages("Q?")[-1]["content"]


def test_prompts_keep_problem_verbatim(task):
    problem = r"Find $\frac{1}{2}$ of {x} and 20\% {0} %s."
    assert problem in task.solver_prompt(problem)
    assert problem in task.generator_prompt(problem)
    assert problem in task.instructed_prompt(problem)
    assert problem in task.scorer_text(problem, SHOT)


def test_parse_example_accepts_requested_form(task):
    shown = generator_messages("Q?", SHOTS)[1]["content"]
    assert task.parse_example(shown, "What is 5 + 5?") == SHOT
    for asked in (task.generator_prompt("What is 5 + 5?"), task.instructed_prompt("What is 5 + 5?")):
        assert isinstance(task.parse_example(asked[asked.index("form:") :], "What is 5 + 5?"), Rejected)


def test_instructed_prompt_asks_for_structure_and_steps(verifier):
    def asked(problem):
        return (
            f"Here is a problem:\n{problem}\n\nWrite one new problem with the same structure: the same kind of "
            "question and the same steps, with other numbers. Then solve the new problem step by step. Use exactly "
            "this form:\nProblem: ...\nSolution: ... \\boxed{...}\n\n"
        )

    shown = "Problem: What is 1 + 2?\nSolution: It is \\boxed{3}.\n\n"
    assert MathTask(verifier, SHOTS).instructed_prompt("Q?") == asked("What is 5 + 5?") + shown + asked("Q?")


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_solver_prompt_has_one_bos(verifier):
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(pathlib.Path(mass_jax.__file__).parent / "data/tiny")
    tokenizer.chat_template = TEMPLATE
    prompt = MathTask(verifier, render=functools.partial(render, tokenizer)).solver_prompt("Q?")
    assert "[user]Q?" in prompt
    assert prompt.endswith("[assistant]")
    assert tokenizer(prompt)["input_ids"].count(tokenizer.bos_token_id) == 1


def test_verify_and_submit_agree(task):
    problems = [Problem(str(i), "p", "s", gold) for i, gold in enumerate(["42", r"\sqrt{8}", r"\frac12", "Monday"])]
    responses = [r"\boxed{42}", r"so \boxed{2\sqrt2}", r"\boxed{\frac13}", r"\boxed{"]
    right, wrong, unparsable = Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE
    assert task.verify(problems, responses) == [right, right, wrong, unparsable]
    asked = [task.submit(problem, response) for problem, response in zip(problems, responses, strict=True)]
    assert [future.result() for future in asked] == [right, right, wrong, unparsable]
    assert task.useful(problems[0], SHOT) is None


def test_verify_survives_random_responses(task):
    rng = random.Random(0)
    pieces = [
        "\\boxed{",
        "}",
        "\\frac",
        "{",
        "1",
        ",",
        "(",
        ")",
        "[",
        "\\cup",
        "=",
        "<",
        "\\text{",
        "x",
        " ",
        "\n",
        "^",
        "%",
        "$",
    ]
    responses = ["".join(rng.choices(pieces, k=rng.randrange(12))) for _ in range(300)]
    problem = Problem("p", "p", "s", "no such answer")
    verdicts = task.verify([problem] * len(responses), responses)
    assert len(verdicts) == 300
    assert Verdict.RIGHT not in verdicts
