"""MASS as pure functions, in the order of one meta-iteration: generate, score, adapt, outer, policy, meta_step."""

from mass_jax import lazy

lazy.require(__name__, "absl")
