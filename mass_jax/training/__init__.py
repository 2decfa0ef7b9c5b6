"""Builds the components of a run from a `Config`, samples rollouts and runs the training loops."""

from mass_jax import lazy

lazy.require(__name__, "absl", "matplotlib", "scipy")
