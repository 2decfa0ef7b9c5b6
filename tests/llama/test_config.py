"""What a config.json may say, and the error for what it may not."""

import dataclasses
import json

import pytest
import transformers

from mass_jax.llama import LlamaConfig


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "mistral"}, "mistral"),
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
def test_a_setting_it_cannot_honour_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        LlamaConfig.from_dict(settings)


@pytest.mark.parametrize(
    "changes", [{"remat": "all"}, {"attention": "flash"}, {"loss_chunk": -1}, {"attention_block": 0}, {"unroll": 0}]
)
def test_an_unknown_execution_setting_is_named(config, changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        dataclasses.replace(config, **changes)


def test_settings_that_are_off_are_no_error():
    assert LlamaConfig.from_dict({"sliding_window": None, "rope_interleaved": False, "pruned_heads": {}})


def test_both_spellings_of_rope_say_the_same():
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    old = {"rope_theta": 5e5, "rope_scaling": {**scaling, "type": "llama3"}}
    new = {"rope_parameters": {**scaling, "rope_theta": 5e5, "rope_type": "llama3"}}
    assert LlamaConfig.from_dict(old) == LlamaConfig.from_dict(new)


def test_a_written_config_is_read_the_same_by_us_and_by_transformers(config, tmp_path):
    config = dataclasses.replace(config, eos_token_id=(2, 0))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert LlamaConfig.from_directory(tmp_path) == config
    assert config.stop_tokens == (2, 0)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    again = LlamaConfig.from_dict(theirs.to_dict())
    assert again == config


def test_a_directory_without_a_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        LlamaConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        LlamaConfig.from_directory(tmp_path)
