"""Loading of a model, its parameters and its tokenizer in one call."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax import llama
from mass_jax.errors import UserError
from mass_jax.llama.loading import model_directory


@pytest.fixture
def directory(tmp_path):
    """Returns a writable copy of the tiny model."""
    shutil.copytree(model_directory("tiny"), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("as_type", [str, lambda path: path])
def test_load_reads_directory(directory, as_type):
    loaded = llama.load(as_type(directory))
    model, params, tokenizer = loaded
    assert loaded.params is params
    logits_BTV = jax.jit(model.apply)({"params": params}, jnp.array([tokenizer("solve 1")["input_ids"]]))
    assert logits_BTV.shape[-1] == model.config.vocab_size
    assert np.isfinite(logits_BTV).all()


def test_load_tiny_equals_its_directory(directory):
    (model, params, tokenizer), other = llama.load("tiny"), llama.load(directory)
    assert model.config == other.model.config
    assert tokenizer.get_vocab() == other.tokenizer.get_vocab()
    jax.tree.map(np.testing.assert_array_equal, params, other.params)


def test_load_casts_parameters():
    assert {leaf.dtype for leaf in jax.tree.leaves(llama.load("tiny", dtype="bfloat16").params)} == {
        jnp.dtype("bfloat16")
    }


def test_load_names_missing_model():
    with pytest.raises(FileNotFoundError, match="model 'no such directory' is not a directory") as caught:
        llama.load("no such directory")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_load_names_missing_file(directory, name):
    (directory / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
        llama.load(directory)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", r"config\.json is not JSON"),
        ("model.safetensors", r"model\.safetensors is truncated"),
        ("tokenizer.json", r"tokenizer\.json and .* cannot be loaded"),
    ],
)
def test_load_names_damaged_file(directory, name, words):
    (directory / name).write_text("{")
    with pytest.raises(UserError, match=words) as caught:
        llama.load(directory)
    assert "\n" not in str(caught.value)
