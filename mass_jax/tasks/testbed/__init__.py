"""The embedded testbed: a synthetic domain where direct answers fail, but synthetic examples can be correct."""

from mass_jax.tasks.testbed.domain import RULES, SUBJECTS, Domain, Operator
from mass_jax.tasks.testbed.problems import Split, draw_problems, meta_operators, oracle_examples
from mass_jax.tasks.testbed.task import OperatorTask
from mass_jax.tasks.testbed.text import STYLES, pretraining_pairs, vocabulary

__all__ = [
    "RULES",
    "STYLES",
    "SUBJECTS",
    "Domain",
    "Operator",
    "OperatorTask",
    "Split",
    "draw_problems",
    "meta_operators",
    "oracle_examples",
    "pretraining_pairs",
    "vocabulary",
]
