"""Calls into the package reasoning-gym. Imported only by the generator and by the worker processes."""

import functools
import json
from typing import Any

from mass_jax.tasks.reasoning.empty_modules import empty_modules

# A dependency of the package imports matplotlib for plots that no family draws. Every process that generates or scores
# problems would spend more than half of its start on it.
with empty_modules("matplotlib", "mpl_toolkits"):
    from reasoning_gym.dataset import ProceduralDataset
    from reasoning_gym.factory import CURRICULA, DATASETS

Entry = dict[str, Any]
"""A problem of the package: "question", "answer" and "metadata"."""


def names() -> list[str]:
    """Returns the names of all families of the package, except for mixtures of others."""
    return sorted(set(DATASETS) - {"composite"})


def is_exact(family: str) -> bool:
    """Returns whether a family's score is 1 for the gold answer's own text only."""
    return bool(DATASETS[family][0].score_answer is ProceduralDataset.score_answer)


def dataset(family: str, level: str, seed: int, size: int) -> ProceduralDataset:
    """Builds a family's generator.

    Args:
        family: One of `names()`.
        level: "easy" for the first level of the family's curriculum, where it has one; "default" for the package's
            default settings.
        seed: Random seed.
        size: Number of problems.
    """
    generator, settings = DATASETS[family]
    if level == "easy" and family in CURRICULA:
        return generator(CURRICULA[family]().generate_configuration({"seed": seed, "size": size}))
    return generator(settings(seed=seed, size=size))


def portable(family: str, entry: Entry) -> Entry | None:
    """Returns an entry as JSON keeps it, or None if it has no text answer or JSON cannot keep it.

    Metadata is omitted where the score does not depend on it.
    """
    if not isinstance(entry.get("answer"), str):
        return None
    kept = {
        "question": entry["question"],
        "answer": entry["answer"],
        "metadata": {} if is_exact(family) else entry["metadata"],
    }
    try:
        copied: Entry = json.loads(json.dumps(kept))
    except (TypeError, ValueError):
        return None
    return copied


def score(family: str, level: str, entry: Entry, answer: str) -> float:
    """Returns the package's score of an answer, in [0, 1].

    Call this on model output only inside a sandbox: some scorers parse the answer with sympy or evaluate it.
    """
    return float(_scorer(family, level).score_answer(answer=answer, entry=entry))


@functools.cache
def _scorer(family: str, level: str) -> ProceduralDataset:
    return dataset(family, level, seed=0, size=1)
