"""Tests of the task registry: problem sets, few-shot examples, errors and custom tasks."""

import contextlib
import json
import pathlib

import pytest
import tokenizers
import transformers

from mass_jax.config import Config
from mass_jax.tasks.base import Problem, Problems, Verdict, start_verifying
from mass_jax.tasks.registry import CATALOGUE, Chosen, open_task
from mass_jax.tasks.testbed import Domain, OperatorTask
from mass_jax.training.components import assemble

TINY = {"num_train_problems": 6, "num_eval_problems": 3, "num_test_examples": 2}


def rows(numbers):
    texts = {n: f"What is {n} plus {n} and then {n} more?" for n in numbers}
    return [{"problem": text, "solution": "s", "answer": str(3 * n)} for n, text in texts.items()]


@pytest.fixture
def data(tmp_path):
    """Files in which three of ten training problems are also evaluation problems, one of them reworded."""
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    moved = rows([12])[0] | {"problem": "Now: what is 12 plus 12 and then 12 more?"}
    train.write_text("".join(json.dumps(row) + "\n" for row in [*rows(range(10, 19)), moved, {"problem": "?"}]))
    test.write_text("".join(json.dumps(row) + "\n" for row in rows([11, 12, 31, 32])))
    return {"train_data": str(train), "eval_data": str(test)}


def test_math_drops_evaluation_duplicates(data):
    with contextlib.closing(assemble(Config(task="math", **data, **TINY))) as parts:
        sets = [parts.problems(seed) for seed in (0, 0, 1)]
        assert sets[0].train == sets[1].train != sets[2].train
        assert sets[0].columns == sets[2].columns
        assert {p.answer for p in sets[0].train}.isdisjoint({"33", "36"})
        assert sets[0].oracle is None
        verdicts = start_verifying(parts.rollouts.dialogue.task, sets[0].columns["test"], [r"\boxed{0}"] * 3)
        assert verdicts() == [Verdict.WRONG] * 3
    with pytest.raises(RuntimeError, match="closed"):
        parts.rollouts.dialogue.task.verify([Problem("p", "?", r"\sqrt{8}", r"\sqrt{8}")], [r"\boxed{2\sqrt{2}}"])


def test_math_shots_leave_training_set(data):
    settings = TINY | {"num_train_problems": 3}
    with contextlib.closing(assemble(Config(task="math", num_shots=2, **data, **settings))) as parts:
        task, train = parts.rollouts.dialogue.task, parts.problems(0).train
        for prompt in (task.generator_prompt("Q?"), task.solver_prompt("Q?")):
            assert prompt.count("Solution: s\n\\boxed{") + prompt.count("\n\ns\n\\boxed{") == 2
            assert not any(problem.problem in prompt for problem in train)


def test_families_use_chat_template():
    template = "{{ date_string }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template)
    chosen = open_task(Config(task="families", num_shots=1, **TINY), pathlib.Path(), tokenizer)
    assert chosen.task.solver_prompt("9 * 9") == (
        "26 Jul 2024<system>Answer with a number.<user>4 + 3<assistant>Answer: 7<user>9 * 9<assistant>Answer: "
    )
    assert len(chosen.problems(0).columns["test"]) == TINY["num_eval_problems"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "math", "num_shots": 4}, "4 shots requested, but the problems provide 3"),
        ({"task": "math", "bad_rows": "error"}, "train.jsonl: line 11: missing field 'solution'; fix the row"),
        ({"task": "mth"}, "--task='mth' is unknown; did you mean 'math'? Known: families, math, reasoning_gym, testb"),
        ({"task": "math", "train_data": "nowhere"}, "'nowhere' is neither a file nor a hub id"),
        ({"task": "math", "num_train_problems": 100}, "--num_train_problems=100 exceeds the 7 usable problems"),
        (
            {"task": "math", "num_eval_problems": 5},
            "--num_eval_problems=5 exceeds the 4 usable problems; pass --num_eval_problems=4",
        ),
        ({"num_shots": 1}, "--num_shots=1 does not apply to --task=testbed; remove it"),
        (
            {"task": "families"},
            "--task ends completions with '\\n', which is 0 tokens of this model, not one; use another --model",
        ),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_assemble_reports_unusable_settings(settings, message, data):
    with pytest.raises(ValueError) as caught:
        assemble(Config(**(TINY | data | settings)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_catalogue_accepts_custom_task(monkeypatch):
    problem = Problem("p", "1 + 1", "2", "2")

    def mine(config, directory, tokenizer):
        return Chosen(OperatorTask(Domain.generate(7)), lambda seed: Problems([problem], {"all": [problem]}, None))

    monkeypatch.setitem(CATALOGUE, "mine", mine)
    assert assemble(Config(task="mine")).problems(0).train == [problem]
