"""Parsing of config.json and generation_config.json, and the errors for unsupported settings."""

import dataclasses
import json

import pytest
import transformers

from mass_jax.errors import UserError
from mass_jax.llama import LlamaConfig


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "qwen2_moe"}, "'qwen2_moe' is not supported: use .* llama, mistral, qwen2, qwen3, smollm3$"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ({"rope_interleaved": True}, "rope_interleaved"),
        ({"num_attention_heads": 6, "num_key_value_heads": 4}, "num_key_value_heads 4"),
        ({"head_dim": 5}, "head_dim 5 is odd"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type 'longrope'"),
        ({"rope_scaling": {"type": "linear"}}, "needs 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "mscale": 1.0}}, "'mscale'"),
        ({"rope_parameters": {"rope_theta": 5.0}, "rope_theta": 6.0}, "rope_theta is 6.0"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        (
            {
                "rope_parameters": {"rope_type": "linear", "factor": 2.0},
                "rope_scaling": {"rope_type": "linear", "factor": 4.0},
            },
            "contradict",
        ),
    ],
)
def test_unsupported_setting_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        LlamaConfig.from_dict(settings)


@pytest.mark.parametrize(
    "changes", [{"remat": "all"}, {"attention": "flash"}, {"loss_chunk": -1}, {"attention_block": 0}, {"unroll": 0}]
)
def test_unknown_execution_setting_is_named(config, changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        dataclasses.replace(config, **changes)


def test_settings_that_are_off_load():
    assert LlamaConfig.from_dict({"sliding_window": None, "rope_interleaved": False, "pruned_heads": {}})


def test_rope_formats_are_equivalent():
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    old = {"rope_theta": 5e5, "rope_scaling": {**scaling, "type": "llama3"}}
    new = {"rope_parameters": {**scaling, "rope_theta": 5e5, "rope_type": "llama3"}}
    assert LlamaConfig.from_dict(old) == LlamaConfig.from_dict(new)


def test_config_round_trips_through_transformers(config, tmp_path):
    config = dataclasses.replace(config, eos_token_id=(2, 0))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert LlamaConfig.from_directory(tmp_path) == config
    assert config.stop_tokens == (2, 0)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    again = LlamaConfig.from_dict(theirs.to_dict())
    assert again == config


def test_missing_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        LlamaConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        LlamaConfig.from_directory(tmp_path)


_SIZES = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a config.json with changes; a value of `...` removes the setting."""

    def write(generation=None, **changes):
        settings = {**_SIZES, "model_type": "llama", "bos_token_id": 1, "eos_token_id": 2, **changes}
        text = json.dumps({key: value for key, value in settings.items() if value is not ...})
        (tmp_path / "config.json").write_text(text)
        if generation is not None:
            (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        *((key, ..., f"{key} is missing: add it") for key in _SIZES),
        *((key, None, f"{key} is missing: add it") for key in _SIZES),
        *((key, "16", f"{key} is '16': give an integer of at least 1") for key in _SIZES),
        *((key, 0, f"{key} is 0: give an integer of at least 1") for key in _SIZES),
        *((key, -4, f"{key} is -4: give an integer of at least 1") for key in _SIZES),
        *((key, 4.0, f"{key} is 4.0: give an integer of at least 1") for key in _SIZES),
        ("num_hidden_layers", True, "num_hidden_layers is True: give an integer"),
        ("num_key_value_heads", 0, "num_key_value_heads is 0: give an integer"),
        ("num_key_value_heads", -2, "num_key_value_heads is -2: give an integer"),
        ("num_key_value_heads", 3, "num_key_value_heads 3 does not divide num_attention_heads 4"),
        ("num_attention_heads", 3, "hidden_size 16 is not a multiple of num_attention_heads 3"),
        ("head_dim", -4, "head_dim is -4: give an integer"),
        ("max_position_embeddings", "2048", "max_position_embeddings is '2048': give an integer"),
        ("rms_norm_eps", float("nan"), "rms_norm_eps is nan: give a positive number"),
        ("rms_norm_eps", "1e-5", "rms_norm_eps is '1e-5': give a positive number"),
        ("rms_norm_eps", -1e-5, "rms_norm_eps is -1e-05: give a positive number"),
        ("rope_theta", None, "rope_theta is null: give a number such as 10000.0"),
        ("rope_theta", "1e4", "rope_theta is '1e4': give a positive number"),
        ("rope_theta", 0, "rope_theta is 0: give a positive number"),
        ("rope_theta", float("inf"), "rope_theta is inf: give a positive number"),
        ("rope_parameters", {"rope_theta": None}, "rope_theta is null"),
        ("rope_parameters", [1], r"rope_parameters is \[1\]: give an object"),
        ("rope_scaling", "linear", "rope_scaling is 'linear': give an object"),
        ("rope_scaling", {"type": "linear", "factor": "2"}, "factor in rope_scaling is '2': give a positive number"),
        ("rope_scaling", {"type": ["linear"], "factor": 2.0}, r"type in rope_scaling is \['linear'\]: give a name"),
        ("tie_word_embeddings", "true", "tie_word_embeddings is 'true': give true or false"),
        ("attention_bias", 1, "attention_bias is 1: give true or false"),
        ("hidden_act", ["silu"], r"hidden_act \['silu'\] is not supported"),
        ("eos_token_id", "2", "eos_token_id is '2': give a token id from 0 to 60"),
        ("eos_token_id", [2, 61], "eos_token_id is 61: give a token id"),
        ("bos_token_id", 1.0, "bos_token_id is 1.0: give a token id"),
        ("model_type", None, "model_type None is not supported: use a model of type llama"),
    ],
)
def test_mistyped_setting_is_named(write, key, value, words):
    with pytest.raises(UserError, match=rf"config\.json: {words}") as caught:
        LlamaConfig.from_directory(write(**{key: value}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[1]", "null", "3", '"x"', "[" * 100_000, "\xff{}"])
def test_malformed_config_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"config\.json (is not JSON|contains a JSON)") as caught:
        LlamaConfig.from_directory(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_config_with_byte_order_mark_loads(write, encoding):
    file = write() / "config.json"
    text = file.read_text()
    file.write_text(text, encoding=encoding)
    assert LlamaConfig.from_directory(file.parent).hidden_size == 16


@pytest.mark.parametrize(
    ("config_eos", "generation_eos", "stops"),
    [
        (2, 5, (2, 5)),
        (2, [2, 7], (2, 7)),
        ([3, 2], 5, (3, 2, 5)),
        (None, [4], (4,)),
        (-1, 4, (4,)),
        (None, None, ()),
        (2, None, (2,)),
    ],
)
def test_stop_tokens_combine_both_files(write, config_eos, generation_eos, stops):
    path = write(generation={"eos_token_id": generation_eos}, eos_token_id=config_eos)
    assert LlamaConfig.from_directory(path).stop_tokens == stops


@pytest.mark.parametrize("eos", ["</s>", 61, [2, -5], {"id": 2}])
def test_mistyped_generation_config_is_named(write, eos):
    with pytest.raises(UserError, match=r"generation_config\.json: eos_token_id is"):
        LlamaConfig.from_directory(write(generation={"eos_token_id": eos}))
