"""Llama in Flax: the model, low-rank adapters, losses, and files in Hugging Face format.

Mistral, Qwen2, Qwen3 and SmolLM3 are Llamas with a few switches; see `families`.

`load` returns the model, its parameters and its tokenizer:

    model, params, tokenizer = llama.load("models/my_llama")
"""

from typing import TYPE_CHECKING

from mass_jax import lazy

if TYPE_CHECKING:
    from mass_jax.llama import flops, hub, loading, lora, losses, peft, suffix, tokenizer, weights
    from mass_jax.llama.config import LlamaConfig
    from mass_jax.llama.loading import load
    from mass_jax.llama.model import Llama

__all__ = [
    "Llama",
    "LlamaConfig",
    "flops",
    "hub",
    "load",
    "loading",
    "lora",
    "losses",
    "peft",
    "suffix",
    "tokenizer",
    "weights",
]
_NAMES = {"Llama": "model", "LlamaConfig": "config", "load": "loading"}
_SUBMODULES = ("flops", "hub", "loading", "lora", "losses", "peft", "suffix", "tokenizer", "weights")
__getattr__, __dir__, _ = lazy.attach(__name__, _NAMES | {name: name for name in _SUBMODULES})
lazy.require(__name__, "flax", "huggingface_hub", "re2", "safetensors", "tokenizers", "transformers")
