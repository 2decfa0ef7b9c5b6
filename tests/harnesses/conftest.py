"""A service that adapts to every question, and a directory with a random model."""

import dataclasses
import json

import pytest

from mass_jax import serving
from mass_jax.harnesses import opening, options
from mass_jax.llama import LlamaConfig, weights
from mass_jax.llama.loading import model_directory
from mass_jax.serving import export
from mass_jax.serving.guards import bounds, regression
from tests.harnesses.settings import BATCH, SEED
from tests.small_models import llama_params

# No gate holds an example back and no bound an update, so that answers are those of the method alone.
LENIENT = serving.Policy(
    gates={},
    min_examples=1,
    limits=bounds.UpdateLimits(relative_norm=10.0, loss_ratio=100.0),
    regression=regression.Tolerance(accuracy_drop=1.0, nll_rise=100.0),
)


@pytest.fixture(scope="session")
def policy_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    path.write_text(LENIENT.to_json())
    return path


@pytest.fixture(scope="session")
def adapting(policy_file, tmp_path_factory):
    """A model that adapts to every question."""
    log = tmp_path_factory.mktemp("adapting") / "events.jsonl"
    arguments = {"policy": policy_file, "log": log, "batch_size": BATCH, "seed": SEED}
    model = opening.open_model(options.parse({"pretrained": "tiny", "adapt": True, **arguments}))
    yield model
    model.close()


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """A directory with a small random Llama and the embedded model's tokenizer."""
    directory = tmp_path_factory.mktemp("random")
    tiny = LlamaConfig.from_directory(model_directory("tiny"))
    config = dataclasses.replace(tiny, num_key_value_heads=2, num_hidden_layers=2, initializer_range=0.2)
    weights.save(directory, llama_params(config), config)
    export.copy_tokenizer(model_directory("tiny"), directory)
    assert json.loads((directory / "config.json").read_text())["num_key_value_heads"] == 2
    return directory
