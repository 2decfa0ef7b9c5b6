"""Sampling from a Llama: prompts read once, many samples each, one adapter per prompt."""

from mass_jax.llama.decode import unstack
from mass_jax.sampling.choose import Settings
from mass_jax.sampling.engine import Engine
from mass_jax.sampling.sample import Samples, sample
from mass_jax.sampling.sampler import Continuation, Sampler

__all__ = ["Continuation", "Engine", "Sampler", "Samples", "Settings", "sample", "unstack"]
