"""Assembly of a run's components: a damaged model directory is an error that names the file."""

import dataclasses
import json
import shutil

import jax
import pytest

from mass_jax.config import Config
from mass_jax.llama import LlamaConfig, published
from mass_jax.runtime import make_mesh
from mass_jax.training.components import assemble, load_pretrained, model_directory


def lose_weights(model):
    model.joinpath("model.safetensors").unlink()


def cut_weights(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def break_config(model):
    (model / "config.json").write_text("{")


def empty_config(model):
    (model / "config.json").write_text("[]")


def mistype_config(model):
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": "64"}))


def break_tokenizer(model):
    (model / "tokenizer.json").write_text("{}")


def break_index(model):
    (model / "model.safetensors").unlink()  # the single file takes precedence, as in Hugging Face's loader
    (model / "model.safetensors.index.json").write_text("{")


def swap_domain(model):
    path = model / "domain.json"
    path.write_text(path.read_text().replace(next(iter(json.loads(path.read_text())["class_rules"])), "nowhere"))


def lose_tokenizer(model):
    (model / "tokenizer.json").unlink()


def lose_domain(model):
    (model / "domain.json").unlink()


FAULTS = [
    *(lose_weights, cut_weights, break_config, empty_config, mistype_config, lose_tokenizer, break_tokenizer),
    *(break_index, lose_domain, swap_domain),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_assemble_names_damaged_model_file(fault, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(model_directory("tiny"), model)
    fault(model)
    with pytest.raises((ValueError, OSError)) as caught:
        assemble(Config(model=str(model)))
    assert "\n" not in str(caught.value)
    assert str(model) in str(caught.value) or fault is mistype_config


def test_random_weights_need_no_weights_file(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(model_directory("tiny"), model, ignore=shutil.ignore_patterns("*.safetensors"))
    components = assemble(Config(model=str(model), random_weights=True, base_dtype="bfloat16"))
    leaves = jax.tree.leaves(components.model.params)
    assert {leaf.dtype.name for leaf in leaves} == {"bfloat16"}
    assert components.model.architecture.num_hidden_layers == 3


def test_random_weights_of_published_name_need_no_files(monkeypatch):
    shape = LlamaConfig.from_directory(model_directory("tiny"))
    monkeypatch.setitem(published.PUBLISHED, "maker/model", shape)
    mesh = make_mesh("auto", jax.devices()[:1])
    settings = Config(model="maker/model", random_weights=True, base_dtype="bfloat16")
    one, two = (load_pretrained(dataclasses.replace(settings, seeds=(seed,)), mesh) for seed in (0, 1))
    assert one.tokenizer.eos_token == "</s>"
    tables = [loaded.params["embed_tokens"]["embedding"] for loaded in (one, two)]
    assert tables[0].shape == (shape.vocab_size, shape.hidden_size)
    assert not bool((tables[0] == tables[1]).all())
