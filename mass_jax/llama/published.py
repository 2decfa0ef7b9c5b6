"""Architectures of published models, for plans and timings without their files."""

from typing import Any

from mass_jax.llama.config import LlamaConfig
from mass_jax.llama.rope import Rope


def _llama3(**sizes: Any) -> LlamaConfig:
    factor = sizes.pop("rope_factor", 8.0)
    rope = Rope(
        rope_type="llama3",
        rope_theta=500000.0,
        factor=factor,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    return LlamaConfig(vocab_size=128256, max_position_embeddings=131072, rms_norm_eps=1e-5, rope=rope, **sizes)


def _sizes(width: int, inner: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
    }


def _qwen(model_type: str, **sizes: Any) -> LlamaConfig:
    published = {"vocab_size": 151936, "tie_word_embeddings": True, "rope_theta": 1000000.0}
    published |= {"bos_token_id": 151643, "eos_token_id": 151645}
    return LlamaConfig.from_dict({"model_type": model_type, **published, **sizes})


# From the config.json of each model.
PUBLISHED = {
    "meta-llama/Llama-3.2-1B-Instruct": _llama3(
        **_sizes(2048, 8192, 16, 32), head_dim=64, tie_word_embeddings=True, rope_factor=32.0
    ),
    "meta-llama/Llama-3.1-8B-Instruct": _llama3(**_sizes(4096, 14336, 32, 32)),
    "meta-llama/Llama-3.1-70B-Instruct": _llama3(**_sizes(8192, 28672, 80, 64)),
    "Qwen/Qwen2.5-0.5B-Instruct": _qwen("qwen2", **(_sizes(896, 4864, 24, 14) | {"num_key_value_heads": 2})),
    "Qwen/Qwen3-0.6B": _qwen("qwen3", **_sizes(1024, 3072, 28, 16), head_dim=128, max_position_embeddings=40960),
}
