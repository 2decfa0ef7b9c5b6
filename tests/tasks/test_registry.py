"""Tests of the task registry: problem sets, few-shot examples, errors and custom tasks."""

import contextlib
import dataclasses
import json
import pathlib
import re

import jax
import pytest
import tokenizers
import transformers

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.tasks.base import Problem, Problems, Verdict, start_verifying
from mass_jax.tasks.registry import CATALOGUE, Chosen, open_task
from mass_jax.tasks.testbed import Domain, OperatorTask
from mass_jax.training.components import assemble
from tests.commands import in_process

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
        ({"task": "math", "columns": ("answer:label",)}, "has no column 'label'; did you mean"),
        ({"task": "absent.py:make"}, "--task=absent.py:make: absent.py is not a file; give the path of a Python file"),
        ({"task": "mass_jax.tasks:make"}, "--task=mass_jax.tasks:make: mass_jax.tasks has no 'make'"),
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


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "def make(config, directory): pass",
            "too many positional arguments; name a function of (config,",
        ),
        (
            "def make(config, directory, tokenizer): return 3",
            "returns int; return mass_jax.tasks.registry.Chosen",
        ),
        ("def make(*_): return Chosen(3, len)", ": int has no final_answer, generator_prompt, parse_example, scorer_t"),
        (
            "def make(*_): return Chosen(FamiliesTask(), [])",
            "problems of Chosen: list cannot be called; give a",
        ),
        ("def make(*_): return Chosen(FamiliesTask(), len, end=3)", "Chosen has end=3 and close="),
    ],
    ids=["arguments", "return", "methods", "problems", "end"],
)
def test_own_task_faults_are_one_line(body, message, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        f"from mass_jax.tasks.families import FamiliesTask\nfrom mass_jax.tasks.registry import Chosen\n{body}\n"
    )
    with pytest.raises(UserError) as caught:
        open_task(Config(task=f"{file}:make"), pathlib.Path(), None)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"--task={file}:make")
    assert "\n" not in str(caught.value)


def test_documented_task_opens_by_flag(tmp_path, monkeypatch):
    """The file of the guide, named by --task as a command reads it."""
    page = pathlib.Path(__file__).parents[2] / "docs" / "guides" / "own_task.md"
    code = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    (tmp_path / "digit_sum.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    done = in_process("train", "--task=digit_sum.py:open_task", "--workdir=run", "--print_config")
    config = Config.from_json(done.stdout)
    assert config.task == f"{tmp_path}/digit_sum.py:open_task"
    with contextlib.closing(
        assemble(dataclasses.replace(config, num_train_problems=60, num_eval_problems=20))
    ) as parts:
        problems = parts.problems(0)
        keys_N = jax.random.split(jax.random.key(0), 4)
        attempts = parts.rollouts.attempt(parts.pretrained(), None, problems.train[:4], keys_N, 1, temperature=0.0)
    assert (len(problems.train), len(problems.columns["test"])) == (60, 20)
    assert attempts.right_NM.all()
