"""Log on the console."""

import logging as std_logging
import pathlib

from absl import logging


def log_to_stderr() -> None:
    """Logs progress to stderr, as the commands do, without the informational messages of libraries."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    if drop_library_chatter not in handler.filters:
        handler.addFilter(drop_library_chatter)


def drop_library_chatter(record: std_logging.LogRecord) -> bool:
    """Drops informational messages of libraries: a page per save from orbax, and from JAX every absent backend."""
    libraries = {"orbax", "jax"}.intersection(pathlib.Path(record.pathname).parts)
    return record.levelno >= std_logging.WARNING or not libraries
