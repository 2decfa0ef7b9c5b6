"""Answers questions with per-question adaptation: guards, records and replay."""

from mass_jax import lazy

lazy.require(__name__, "absl", "orbax", "pydantic")
