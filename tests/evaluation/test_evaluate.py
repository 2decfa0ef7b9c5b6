"""The row `quest` of the results table, from the check of prompt lengths to the report."""

import dataclasses
import json

import pytest
import tokenizers
import transformers

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.evaluation import study
from mass_jax.evaluation.records import read_records
from mass_jax.llama import weights
from mass_jax.llama.tokenizer import encode
from mass_jax.runtime import Stop
from mass_jax.training.components import assemble
from tests.small_models import LLAMA, llama_params

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)


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
        methods=("quest",),
        num_train_problems=2,
        num_eval_problems=2,
        num_test_examples=2,
        eval_batch=2,
        max_prompt_tokens=80,
        max_generator_prompt_tokens=100,
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
