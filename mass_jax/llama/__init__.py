"""Llama in Flax: the model, low-rank adapters, losses, and files in Hugging Face format.

model, params, tokenizer = llama.load(directory)
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
_SUBMODULES = ("flops", "hub", "loading", "lora", "losses", "peft", "suffix", "tokenizer", "weights")
__getattr__, __dir__, _ = lazy.attach(
    __name__, {"Llama": "model", "LlamaConfig": "config", "load": "loading", **{name: name for name in _SUBMODULES}}
)
