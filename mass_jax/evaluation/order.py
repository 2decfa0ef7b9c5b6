"""Order of a study's rows, and compilation ahead of time of the programs that they call."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence

from mass_jax.config import Config
from mass_jax.rows import ROWS
from mass_jax.runtime import distributed
from mass_jax.training import compiling, programs
from mass_jax.training.components import Components


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
    paths = {name: [records_path(workdir / f"seed{seed}", name) for seed in config.seeds] for name in rows}
    return [name for name in rows if not all(path.exists() for path in paths[name])]


@contextlib.contextmanager
def compiling_ahead(components: Components, rows: Sequence[str], threads: int) -> Iterator[None]:
    """Context that compiles the programs of rows ahead of time, in the order of their first calls.

    Runs of several processes, and those with another sampler, compile each program when it is called.

    Args:
        components: the components of the run.
        rows: keys of `ROWS`.
        threads: number of programs to compile at once; 0 compiles nothing ahead of time.
    """
    rollouts = components.rollouts
    todo = {}
    if threads and rollouts.sampler.is_native and distributed.num_processes() == 1:
        shapes = programs.Shapes(components.config, rollouts.loop, components.scorer, rollouts.feed)
        todo = {program.name: shapes.on_mesh(program) for program in programs.run_programs(shapes, rows)}
    with compiling.ahead(todo, threads):
        yield
