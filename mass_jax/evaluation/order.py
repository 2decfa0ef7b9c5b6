"""Rows of a study: the order of their evaluation, and the files of their records."""

import pathlib
from collections.abc import Sequence

from mass_jax.config import Config
from mass_jax.rows import ROWS


def ordered(rows: Sequence[str]) -> list[str]:
    """Returns rows in the order of their evaluation: those without training first, those that need others' cost last.

    >>> ordered(["mass", "majority", "base"])
    ['base', 'majority', 'mass']
    """
    return sorted(rows, key=lambda name: (ROWS[name].training is not None, ROWS[name].is_sampled))


def records_path(workdir: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the file of a row's records in the directory of a seed."""
    return workdir / "evaluation" / f"{name}.jsonl"


def unfinished(config: Config, rows: Sequence[str], workdir: pathlib.Path) -> list[str]:
    """Returns the rows without a file of records for some seed."""
    seeds = [workdir / f"seed{seed}" for seed in config.seeds]
    return [name for name in rows if not all(records_path(seed, name).exists() for seed in seeds)]
