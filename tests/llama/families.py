"""Random configurations of every model family, and the tests' reference in transformers."""

import random
from typing import Any

import numpy as np
import torch
import transformers

from mass_jax.llama import LlamaConfig

FAMILIES = ("mistral", "qwen2", "qwen3", "smollm3")
LENGTH = 11  # of the longest text; also the sliding window of Mistral

SIZES = {
    "vocab_size": 41,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": None,
}


def random_settings(model_type: str, seed: int) -> dict[str, Any]:
    """Returns a config.json with small random sizes, in the old or the new format of RoPE."""
    rng = random.Random(f"{model_type} {seed}")
    groups, per_group = rng.choice([(1, 2), (2, 1), (2, 2), (1, 4)])
    heads = groups * per_group
    settings: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": rng.randint(30, 60),
        "hidden_size": heads * rng.choice([4, 6, 8]),
        "intermediate_size": rng.randint(8, 40),
        "num_hidden_layers": rng.choice([2, 3]),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-2]),
        "max_position_embeddings": 64,
        "tie_word_embeddings": rng.random() < 0.5,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "pad_token_id": None,
    }
    if model_type in ("mistral", "qwen3") or rng.random() < 0.3:
        settings["head_dim"] = rng.choice([4, 8, 16])  # need not divide the width
    if model_type in ("qwen3", "smollm3"):
        settings["attention_bias"] = rng.random() < 0.5
    if model_type == "mistral":
        settings["sliding_window"] = rng.choice([None, LENGTH, 64])
    else:
        settings |= {"use_sliding_window": rng.random() < 0.5, "sliding_window": LENGTH, "max_window_layers": 1}
    if model_type == "smollm3":
        settings["mlp_bias"] = rng.random() < 0.5
        settings |= rng.choice([{"no_rope_layer_interval": 2}, {"no_rope_layers": [0, 1, 0]}])
    theta = rng.choice([500.0, 10000.0])
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    scaling = rng.choice([None, yarn])
    if seed % 2:
        return {**settings, "rope_parameters": {"rope_theta": theta, **(scaling or {"rope_type": "default"})}}
    return {**settings, "rope_theta": theta, "rope_scaling": scaling}


def texts(config: LlamaConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns right-padded tokens [2, LENGTH] and their mask."""
    tokens_BT = np.random.default_rng(1).integers(0, config.vocab_size, (2, LENGTH)).astype(np.int32)
    return tokens_BT, np.arange(LENGTH) < np.array([[LENGTH], [LENGTH - 4]])


def reference(path: Any) -> transformers.PreTrainedModel:
    """Loads a directory in transformers; fails if a tensor is missing or unexpected."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()


def torch_logits(model: Any, tokens_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
    """Returns the logits of a model in transformers, or of one with an adapter."""
    with torch.no_grad():
        return model(torch.tensor(tokens_BT), attention_mask=torch.tensor(mask_BT)).logits.numpy()
