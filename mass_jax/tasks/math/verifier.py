"""The verifier under the name it had before it moved to `mass_jax.tasks.grading`."""

from mass_jax.tasks.grading.verifier import Verifier

__all__ = ["Verifier"]
