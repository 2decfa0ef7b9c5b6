"""Announces compilations, which can take minutes on large models."""

import functools

from absl import logging


@functools.cache
def announce(program: str) -> None:
    """Logs that a program is about to be compiled, the first time that it is named.

    Call it before a jitted function. The log line appears once per process and name, so a name should change whenever
    the function is compiled again.

    Args:
        program: name of the program, with the shapes that cause another compilation.
    """
    logging.info("compiling %s ...", program)
