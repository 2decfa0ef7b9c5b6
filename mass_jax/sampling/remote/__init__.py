"""Sampling through a completions server that speaks the OpenAI API, with the extensions of vLLM."""

from mass_jax import lazy

lazy.require(__name__, "absl")
