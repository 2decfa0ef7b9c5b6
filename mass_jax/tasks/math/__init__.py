"""Mathematics problems: data sets, prompts, a parser, and a verifier that is safe on untrusted model output."""

from mass_jax import lazy
from mass_jax.tasks.grading.response import final_answer
from mass_jax.tasks.grading.verifier import Verifier
from mass_jax.tasks.grading.workers.limits import Limits
from mass_jax.tasks.grading.workers.pool import Pool
from mass_jax.tasks.math.data import LoadedProblems, load, sample
from mass_jax.tasks.math.prompts import Shots
from mass_jax.tasks.math.shots import take_shots
from mass_jax.tasks.math.task import MathTask
from mass_jax.tasks.near_duplicates import Disjoint, Duplicate, disjoint

__all__ = [
    "Disjoint",
    "Duplicate",
    "Limits",
    "LoadedProblems",
    "MathTask",
    "Pool",
    "Shots",
    "Verifier",
    "disjoint",
    "final_answer",
    "load",
    "sample",
    "take_shots",
]

lazy.require(__name__, "datasets", "huggingface_hub", "math_verify", "sympy")
