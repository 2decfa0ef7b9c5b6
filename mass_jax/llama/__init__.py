"""Llama in Flax: model, low-rank adapters, losses, Hugging Face weights and tokenizers; usable alone."""

from mass_jax.llama import hub, lora, losses, peft, suffix, tokenizer, weights
from mass_jax.llama.config import LlamaConfig
from mass_jax.llama.model import Llama

__all__ = ["Llama", "LlamaConfig", "hub", "lora", "losses", "peft", "suffix", "tokenizer", "weights"]
