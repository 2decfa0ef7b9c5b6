"""The row `quest` of the results table: examples written on an instruction, otherwise as in TT-SS."""

import dataclasses
import json

import pytest
import tokenizers
import transformers

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.evaluation import evaluate, study
from mass_jax.evaluation.records import read_records
from mass_jax.llama import weights
from mass_jax.llama.tokenizer import encode
from mass_jax.runtime import Stop
from mass_jax.tasks.testbed import Domain, OperatorTask
from mass_jax.training.components import assemble, model_directory
from tests.small_models import LLAMA, components, llama_params

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)


class OtherOperator(OperatorTask):
    """The testbed, with an instruction to write examples of one operator, whatever the target's."""

    def instructed_prompt(self, problem):
        return self.generator_prompt("7 kisu 4")


def test_quest_adapts_to_examples_of_instructed_prompt(tmp_path):
    made = components()
    task = OtherOperator(Domain.load(model_directory("tiny") / "domain.json"))
    problems = made.problems(0)
    found = {}
    for name in ("tt_ss", "quest"):
        job = evaluate.Job(made.config, made.rollouts.with_task(task), made.pretrained(), name, problems, seed=0)
        evaluate.evaluate(job, tmp_path / f"{name}.jsonl", Stop())
        found[name] = read_records(tmp_path / f"{name}.jsonl")
    for name, records in found.items():
        assert len(records) == 4
        written = [example for r in records for example in r["examples"] if "problem" in example]
        assert len(written) >= 4
        assert all((e["problem"].split()[1] == "kisu") == (name == "quest") for e in written)
        assert all(r["tokens_trained"] > 0 for r in records if any("problem" in e for e in r["examples"]))
    for plain, instructed in zip(found["tt_ss"], found["quest"], strict=True):
        assert plain["id"] == instructed["id"]
        assert plain["tokens_read"] == instructed["tokens_read"]
        assert len(plain["examples"]) == len(instructed["examples"]) == made.config.num_test_examples


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """Directory of a random model that reads bytes and has a chat template."""
    directory = tmp_path_factory.mktemp("chat_model")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE).save_pretrained(directory)
    config = dataclasses.replace(LLAMA, vocab_size=len(letters))
    weights.save(directory, llama_params(config), config)
    return directory


def test_quest_runs_on_families(chat_model, tmp_path):
    config = Config(
        task="families",
        model=str(chat_model),
        methods=("base", "tt_ss", "quest"),
        num_train_problems=2,
        num_eval_problems=2,
        num_test_examples=2,
        eval_batch=2,
        max_prompt_tokens=80,
        max_generator_prompt_tokens=200,
    )
    short = assemble(config)
    with pytest.raises(UserError, match=r"raise --max_generator_prompt_tokens to \d+ or more"):
        study.run_study(short, tmp_path / "run", Stop())
    assert not (tmp_path / "run").exists()
    prompts = [short.chosen.task.instructed_prompt(p.problem) for p in short.problems(0).columns["test"]]
    longest = max(len(encode(short.model.tokenizer, prompt)) for prompt in prompts)
    made = assemble(dataclasses.replace(config, max_generator_prompt_tokens=longest))
    study.run_study(made, tmp_path / "run", Stop())
    task, records = made.chosen.task, read_records(study.records_path(tmp_path / "run" / "seed0", "quest"))
    for record in records:
        texts = (task.instructed_prompt(record["problem"]), task.solver_prompt(record["problem"]))
        assert record["tokens_read"] == sum(len(encode(made.model.tokenizer, text)) for text in texts)
        assert len(record["examples"]) == 2
    assert len(records) == 2
    table = json.loads((tmp_path / "run" / "report" / "table1.json").read_text())
    assert table["methods"]["quest"]["label"] == "QueST-style self-synthesis"
    assert any("QueST-style self-synthesis changes only the prompt" in note for note in table["limits"])
