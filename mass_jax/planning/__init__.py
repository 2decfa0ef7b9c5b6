"""Memory planning: compiles every phase of a run ahead of time for devices that are not attached."""

from mass_jax import lazy

lazy.require(__name__, "absl", "matplotlib")
