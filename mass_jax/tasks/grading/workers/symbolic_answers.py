"""Worker program that compares symbolic answers; see `worker`."""

import json

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading import symbolic
from mass_jax.tasks.grading.grade import grade


def warm_up() -> None:
    """Loads sympy and its parsers, and removes its evaluator of Python text."""
    symbolic.warm_up()
    symbolic.close_evaluator()


def check(line: bytes) -> Verdict:
    """Compares the pair of answers of a request line, JSON [gold, answer]."""
    gold, answer = json.loads(line)
    return grade(gold, answer, symbolic.SYMBOLIC)
