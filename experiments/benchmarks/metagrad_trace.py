"""Traces and memory profiles of single runs, for XProf, TensorBoard and pprof."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
from absl import logging


def write(call: Callable[[], Any], directory: pathlib.Path) -> None:
    """Writes a trace of one call, and a profile of the device memory that is in use at its end.

    Args:
        call: the call, which has run before.
        directory: gets `plugins/profile/...`, and `memory.prof` in the format of pprof.
    """
    directory.mkdir(parents=True, exist_ok=True)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # calls of Python functions hide the operations of the program
    with jax.profiler.trace(str(directory), profiler_options=options):
        result = jax.block_until_ready(call())
    jax.profiler.save_device_memory_profile(str(directory / "memory.prof"))
    del result
    logging.info("wrote the trace %s", directory)


def folder_of(label: str) -> str:
    """Returns a name for the directory of a case.

    >>> folder_of("truncated:2, chunk=4, sgd(0.1)")
    'truncated_2_chunk_4_sgd_0.1'
    """
    kept = "".join(character if character.isalnum() or character in "-." else " " for character in label)
    return "_".join(kept.split())
