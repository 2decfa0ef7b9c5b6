"""Sampling from a Llama: prompts read once, many samples each, one adapter per prompt."""

from mass_jax.llama.decode import unstack
from mass_jax.sampling.choose import Settings
from mass_jax.sampling.sample import Samples, sample

__all__ = ["Samples", "Settings", "sample", "unstack"]
