"""Tasks: problems, prompts, parsers and verification, in plain Python without JAX."""

from mass_jax import lazy

lazy.require(__name__, "absl", "jinja2", "re2")
