"""The flags --workdir, which may be a URL of a bucket, and --local_workdir."""

import contextlib
import pathlib

from absl import flags

from experiments.path_flags import DEFINE_path
from mass_jax import runtime

FLAGS = flags.FLAGS


def define(help_text: str) -> None:
    """Defines --workdir and --local_workdir; a command adopts them to list them in its --help.

    Args:
        help_text: Description of --workdir.
    """
    DEFINE_path("workdir", None, f"{help_text} A local directory, or gs://BUCKET/PATH or s3://BUCKET/PATH.")
    DEFINE_path(
        "local_workdir",
        None,
        "With a URL as --workdir: local directory of its files; by default in the user's cache directory.",
    )


def opened(held: contextlib.ExitStack, stop: runtime.Stop) -> pathlib.Path:
    """Returns the local directory of --workdir for a run that writes to it; see `runtime.open_workdir`.

    Args:
        held: holds the lease of a URL; its exit uploads the last changes.
        stop: its polls raise once the lease is lost.
    """
    return held.enter_context(runtime.open_workdir(FLAGS.workdir, FLAGS.local_workdir, stop))


def use_copy(held: contextlib.ExitStack) -> None:
    """Replaces a URL as --workdir by a local directory with its files, for commands that only read the workdir.

    Args:
        held: holds the lock of the directory, since another command would replace its files.
    """
    if FLAGS.workdir is not None:
        path = held.enter_context(runtime.read_workdir(FLAGS.workdir, FLAGS.local_workdir))
        FLAGS["workdir"].value = str(path)
        FLAGS["local_workdir"].value = None
