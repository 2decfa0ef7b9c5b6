"""Evaluates every method, keeps records and builds the report."""

from mass_jax import lazy

lazy.require(__name__, "absl", "matplotlib", "scipy")
