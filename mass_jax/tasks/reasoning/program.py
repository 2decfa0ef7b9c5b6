"""Worker program that scores answers with reasoning-gym; see `mass_jax.tasks.grading.workers.worker`."""

import json

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.reasoning import library


def warm_up() -> None:
    """Loads the package, whose import may generate code that the sandbox would refuse."""
    for family in ("chain_sum", "coin_flip"):  # common scorers, with the decimal and fraction modules
        library.score(family, "default", library.dataset(family, "default", 0, 1)[0], "1")


def check(line: bytes) -> Verdict:
    """Scores one answer: JSON [family, level, entry, answer]. A score of 1 counts as correct.

    Raises:
        Exception: Whatever the scorer raises, such as PermissionError where it would evaluate the answer.
    """
    family, level, entry, answer = json.loads(line)
    return Verdict.RIGHT if library.score(family, level, entry, answer) >= 1.0 else Verdict.WRONG
