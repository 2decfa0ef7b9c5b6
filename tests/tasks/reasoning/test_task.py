"""Tests of the reasoning task: prompts, parser, opening through the registry."""

import pathlib

import pytest
import tokenizers
import transformers

from mass_jax.config import Config
from mass_jax.tasks.base import Example, Rejected, Task, Verdict, start_verifying
from mass_jax.tasks.reasoning import ReasoningTask, Scorer
from mass_jax.tasks.registry import open_task

SETTINGS = {
    "task": "reasoning_gym",
    "reasoning_train": ("chain_sum", "syllogism"),
    "reasoning_test": ("letter_counting",),
    "num_train_problems": 20,
    "num_eval_problems": 6,
    "num_test_examples": 2,
}
TARGET = "Calculate 3 + 4."


def task_of(form="question_first"):
    return ReasoningTask(Scorer("easy", {}), [("a?", Example("b?", "c"))], form=form, control_tokens=("<|im_end|>",))


@pytest.mark.parametrize("form", ["question_first", "answer_first"])
def test_parse_example_reads_written_form(form):
    task: Task = task_of(form)
    example = Example("Calculate 5 - 2.", "3")
    written = task.scorer_text(TARGET, example).removeprefix(f"Problem: {TARGET}\nSimilar problem:")
    assert task.parse_example(written, TARGET) == example
    shown = task.generator_prompt(TARGET).split("\n")[1].removeprefix("Similar problem:")
    assert task.parse_example(shown, TARGET) == Example("b?", "c")


@pytest.mark.parametrize(
    ("form", "named", "shown"),
    [
        ("question_first", "problem Answer: answer", "b? Answer: c"),
        ("answer_first", "Answer: answer Problem: problem", "Answer: c Problem: b?"),
    ],
)
def test_instructed_prompt_shows_form(form, named, shown):
    task = task_of(form)
    assert task.instructed_prompt(TARGET) == (
        "Write one new problem of the same kind with other numbers or words, then its answer, exactly in the form "
        f"'{named}'.\n\na?\n\n{shown}\n\n{TARGET}\n\n"
    )
    assert task.parse_example(shown, TARGET) == Example("b?", "c")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Calculate 5 - 2.",
        "Calculate 5 - 2. Answer:",
        "Answer: 3",
        "? Answer: 3",
        "Calculate 5 - 2. Answer: 3 Answer: 4",
        "Problem: Calculate 5 - 2. Answer: 3",
        "Calculate 5 - 2. Answer: 3\nmore",
        "Calculate 5 - 2.<|im_end|> Answer: 3",
        "calculate 3+4 Answer: 7",
        "Now: Calculate 3 + 4. And? Answer: 7",
        "Calculate 3 Answer: 7",
        "x" * 100_000 + " Answer: 3",
        "\ud800 \x00 Answer: 3",
    ],
    ids=lambda text: repr(text)[:40],
)
def test_parse_example_rejects(text):
    assert isinstance(task_of().parse_example(text, TARGET), Rejected)


def test_solver_prompt_uses_chat_template():
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template)
    chosen = open_task(Config(**SETTINGS, num_shots=1), pathlib.Path(), tokenizer)
    prompt = chosen.task.solver_prompt("Q?")
    assert prompt.startswith("<system>Give only the final answer.<user>")
    assert prompt.count("<assistant>Answer: ") == 2
    assert prompt.endswith("<user>Q?<assistant>Answer: ")


def test_open_task_draws_seen_and_unseen_columns():
    chosen = open_task(Config(**SETTINGS, num_shots=2), pathlib.Path(), None)
    try:
        problems, other = chosen.problems(0), chosen.problems(1)
        assert list(problems.columns) == ["unseen", "seen"]
        assert {p.subject for p in problems.columns["unseen"]} == {"letter_counting"}
        assert {p.subject for p in problems.columns["seen"]} == {"chain_sum", "syllogism"}
        assert problems.columns == other.columns
        assert problems.train != other.train
        trained = {p.problem for p in problems.train}
        assert trained.isdisjoint(p.problem for column in problems.columns.values() for p in column)
        shown = chosen.task.generator_prompt("Q?") + chosen.task.solver_prompt("Q?")
        assert not any(text in shown for text in trained)
        target = problems.columns["unseen"][0]
        correct = problems.oracle(target, 5)
        assert correct == problems.oracle(target, 5)
        assert len({example.problem for example in correct} - {target.problem}) == 5
        verdicts = start_verifying(chosen.task, problems.train[:2], [f" {p.answer}\n" for p in problems.train[:2]])
        assert verdicts() == [Verdict.RIGHT] * 2
    finally:
        chosen.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reasoning_train": ("chain_sun",)}, "no family 'chain_sun'; did you mean 'chain_sum'?"),
        ({"reasoning_test": ("syllogism",)}, "--reasoning_test=syllogism is also in --reasoning_train"),
        (
            {"reasoning_test": ("coin_flip",), "num_eval_problems": 60},
            " problems that fit of coin_flip; lower it, or name more families",
        ),
        ({"num_shots": 9}, "--num_shots=9 must be between 0 and 8 for --task=reasoning_gym"),
        (
            {"example_form": "worked"},
            "--example_form=worked does not apply to --task=reasoning_gym; use question_first",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_open_task_reports_unusable_settings(settings, message, monkeypatch):
    monkeypatch.setattr("mass_jax.tasks.reasoning.bank._ROUNDS", 2)  # each round starts a process
    monkeypatch.setattr("mass_jax.tasks.reasoning.opening._WIDENINGS", 1)
    with pytest.raises(ValueError) as caught:
        open_task(Config(**(SETTINGS | settings)), pathlib.Path(), None).problems(0)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
