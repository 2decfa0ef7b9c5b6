"""The MASS algorithm as pure functions: generate, score, adapt, outer loss, policy gradient and meta-step."""

from mass_jax import lazy

lazy.require(__name__, "absl")
