"""Seven families of one-step arithmetic problems in natural language, short enough to train on a CPU."""

from mass_jax.tasks.families.family import FAMILIES, Fact, Form, find
from mass_jax.tasks.families.problems import draw_problems, open_problems, oracle_examples, side_of_fact
from mass_jax.tasks.families.task import END, FamiliesTask
from mass_jax.tasks.sides import Side

__all__ = [
    "END",
    "FAMILIES",
    "Fact",
    "FamiliesTask",
    "Form",
    "Side",
    "draw_problems",
    "find",
    "open_problems",
    "oracle_examples",
    "side_of_fact",
]
