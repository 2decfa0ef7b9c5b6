"""Settings of model families: defaults, errors, and those with one value per layer."""

import dataclasses

import pytest
import transformers

from mass_jax.errors import UserError
from mass_jax.llama import LlamaConfig
from tests.llama.families import FAMILIES, SIZES


@pytest.mark.parametrize("name", FAMILIES)
def test_missing_settings_take_defaults_of_transformers(name):
    sizes = {key: SIZES[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    sizes |= {"num_attention_heads": 32, "vocab_size": 128300, "hidden_size": 64}
    theirs = transformers.AutoConfig.for_model(name, **sizes).to_dict()
    assert LlamaConfig.from_dict({**sizes, "model_type": name}) == LlamaConfig.from_dict(theirs)


@pytest.mark.parametrize(
    ("model_type", "changes", "words"),
    [
        ("qwen2", {"attention_bias": True}, "'attention_bias' to True, which is not a setting of 'qwen2' models"),
        ("qwen3", {"mlp_bias": True}, "'mlp_bias' to True, which is not a setting of 'qwen3' models"),
        ("mistral", {"attention_bias": True}, "'attention_bias'"),
        ("mistral", {"layer_types": ["sliding_attention"]}, "'layer_types'"),
        ("mistral", {"sliding_window": 0}, "sliding_window is 0: give an integer of at least 1"),
        ("mistral", {"sliding_window": "4096"}, "sliding_window is '4096'"),
        ("qwen2", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("qwen2", {"use_sliding_window": 1}, "use_sliding_window is 1: give true or false"),
        ("qwen2", {"max_window_layers": -1}, "max_window_layers is -1: give an integer of at least 0"),
        ("qwen2", {"layer_types": "sliding_attention"}, "layer_types is 'sliding_attention': give a list of 2 values"),
        ("qwen2", {"layer_types": ["full_attention"]}, "give a list of 2 values"),
        ("qwen2", {"layer_types": ["full_attention", "chunked_attention"]}, "layer_types has 'chunked_attention'"),
        ("qwen2", {"layer_types": ["full_attention", ["x"]]}, r"layer_types has \['x'\]"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "the sliding window is off: set use_sliding_window"),
        ("qwen2", {"no_rope_layers": [1, 0]}, "'no_rope_layers' .* not a setting of 'qwen2' models"),
        ("smollm3", {"no_rope_layers": [1]}, r"no_rope_layers is \[1\]: give a list of 2 values"),
        ("smollm3", {"no_rope_layers": [1, True]}, "no_rope_layers has True: use 0 or 1"),
        ("smollm3", {"no_rope_layers": [1, 2]}, "no_rope_layers has 2: use 0 or 1"),
        ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval is 0: give an integer of at least 1"),
        ("smollm3", {"num_hidden_layers": 2**30}, "num_hidden_layers is 1073741824: .* at most 10000"),
        ("qwen3", {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type 'longrope'"),
        ({"qwen3": 1}, {}, "model_type {'qwen3': 1} is not supported"),
    ],
)
def test_unsupported_setting_of_family_is_named(model_type, changes, words):
    with pytest.raises(UserError, match=words) as caught:
        LlamaConfig.from_dict({**SIZES, "model_type": model_type, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model_type", "changes", "words"),
    [
        ("qwen2", {}, "qkv_bias is False, but True in 'qwen2' models"),
        ("llama", {"qk_norm": True}, "qk_norm is True, but False in 'llama' models"),
        ("llama", {"no_rope_layers": (1, 0)}, r"no_rope_layers is \(1, 0.*not a setting of 'llama' models"),
        ("llama", {"sliding_window": 8}, "sliding_window is 8"),
    ],
)
def test_architecture_without_family_is_refused(model_type, changes, words):
    with pytest.raises(UserError, match=words):
        LlamaConfig(model_type=model_type, **changes)


def test_layers_repeat_when_their_number_changes():
    config = LlamaConfig.from_dict({**SIZES, "model_type": "smollm3", "num_hidden_layers": 8})
    assert config.no_rope_layers == (1, 1, 1, 0) * 2
    assert dataclasses.replace(config, num_hidden_layers=12).no_rope_layers == (1, 1, 1, 0) * 3
    assert dataclasses.replace(config, num_hidden_layers=3).no_rope_layers == ()
    assert config.to_dict()["no_rope_layers"] == [1, 1, 1, 0] * 2
