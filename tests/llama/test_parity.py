"""Parity with transformers on torch, over random configurations."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from mass_jax.llama import Llama, LlamaConfig, weights
from mass_jax.llama.names import entries

torch.set_num_threads(1)  # tests run in parallel, and torch's threads spin while they wait for a core

_POSITIONS = 48  # more than the original context length of every RoPE scaling below


def _rope(rng: random.Random, kind: str) -> dict:
    settings: dict = {"rope_type": kind, "rope_theta": rng.choice([500.0, 10000.0, 500000.0])}
    if kind != "default":
        settings["factor"] = rng.choice([2.0, 8.0])
    if kind == "llama3":
        settings |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    if kind == "yarn":
        settings["original_max_position_embeddings"] = 16
        settings |= rng.choice(
            [
                {},
                {"attention_factor": 1.3},
                {"mscale": 0.7, "mscale_all_dim": 0.9},
                {"beta_fast": 16.0, "beta_slow": 2.0},
            ]
        )
    return settings


def _random_settings(seed: int) -> dict:
    rng = random.Random(seed)
    kind = ["default", "linear", "dynamic", "llama3", "yarn"][seed % 5]
    groups, per_group = rng.choice([(1, 1), (1, 4), (2, 1), (2, 2), (3, 2)])
    head_dim = rng.choice([4, 8, 16])
    settings = {
        "vocab_size": rng.randint(20, 90),
        "hidden_size": groups * per_group * rng.choice([4, 8, 12]),
        "intermediate_size": rng.randint(8, 40),
        "num_hidden_layers": rng.randint(1, 3),
        "num_attention_heads": groups * per_group,
        "num_key_value_heads": groups,
        "head_dim": head_dim,
        "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-2]),
        "max_position_embeddings": 32 if kind == "dynamic" else 64,
        "tie_word_embeddings": rng.random() < 0.5,
        "attention_bias": rng.random() < 0.5,
        "mlp_bias": rng.random() < 0.5,
        "initializer_range": 0.2,
    }
    rope = _rope(rng, kind)
    if seed % 2:
        return {**settings, "rope_parameters": rope}
    theta = rope.pop("rope_theta")
    return {**settings, "rope_theta": theta, "rope_scaling": None if kind == "default" else rope}


@pytest.mark.parametrize("seed", range(32))
def test_logits_match_transformers(seed, tmp_path, make_params):
    config = LlamaConfig.from_dict(_random_settings(seed))
    params = make_params(config)
    weights.save(tmp_path, params, config)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()

    tokens_BT = np.random.default_rng(seed).integers(0, config.vocab_size, (2, _POSITIONS))
    mask_BT = np.arange(_POSITIONS) < np.array([[_POSITIONS], [_POSITIONS - 9]])
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens_BT), attention_mask=torch.tensor(mask_BT)).logits.numpy()
    apply = jax.jit(Llama(config).apply)
    found = np.asarray(apply({"params": params}, jnp.asarray(tokens_BT), jnp.asarray(mask_BT)))
    np.testing.assert_allclose(found[mask_BT], wanted[mask_BT], atol=1e-4, rtol=0)


_META = {
    "Llama-3.1-8B": ((4096, 14336, 32, 32, 8, 128256, False), 8_030_261_248),
    "Llama-3.1-70B": ((8192, 28672, 80, 64, 8, 128256, False), 70_553_706_496),
    "Llama-3.2-1B": ((2048, 8192, 16, 32, 8, 128256, True), 1_235_814_400),
}


@pytest.mark.parametrize("name", _META)
def test_real_configurations_match_hugging_face(name):
    (width, inner, layers, heads, groups, vocabulary, tied), count = _META[name]
    settings = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }
    config = LlamaConfig.from_dict(settings)
    params = jax.eval_shape(Llama(config).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count

    with torch.device("meta"):
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    wanted = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    if tied:
        del wanted["lm_head.weight"]  # tied to the embeddings
    assert {entry.name: entry.shape for entry in entries(config)} == wanted
    for entry in entries(config):
        leaf = params
        for key in entry.path:
            leaf = leaf[key]
        shape = leaf.shape if entry.layer is None else leaf.shape[1:]
        assert shape == (entry.shape[::-1] if entry.transposed else entry.shape)
