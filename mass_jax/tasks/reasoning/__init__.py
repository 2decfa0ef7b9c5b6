"""Procedural reasoning problems of the package reasoning-gym, with its own scoring in worker processes.

The package is never imported by the calling process: `generate` runs in a process of its own, `program` in the workers.
"""

from mass_jax import lazy

lazy.require(__name__, "reasoning_gym", "re2")

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "Bank": "bank",
        "END": "task",
        "FITTING": "catalogue",
        "ReasoningTask": "task",
        "Scorer": "scorer",
        "open_families": "opening",
    },
)
