"""Checkpoints of a training state by orbax: asynchronous, atomic, the newest sound one is used."""

import contextlib
import pathlib
import traceback
from collections.abc import Iterator
from typing import Any, Self

import jax
from absl import logging
from orbax.checkpoint import v1 as ocp

from mass_jax.errors import UserError
from mass_jax.runtime.distributed import agreed_maximum
from mass_jax.runtime.paths import check_checkpoint_path
from mass_jax.runtime.signals import Interrupted


class Checkpoints(contextlib.AbstractContextManager):
    """Saves and restores one pytree of arrays, keeping the newest two.

    Two, because a damaged newest one must not cost the run.

    Args:
        directory: where; made if absent.
    """

    def __init__(self, directory: pathlib.Path):
        check_checkpoint_path(directory)
        self._checkpointer = ocp.training.Checkpointer(
            directory.absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(2),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._full_disk_named():
                self._checkpointer.close()
        except Exception as error:
            if kind is None or issubclass(kind, Interrupted):  # else the block's own error is the one to show
                raise
            logging.error("the last save failed: %s", str(error).partition("\n")[0] or type(error).__name__)

    def save(self, step: int, state: Any) -> None:
        """Starts saving `state` as after `step` steps, in the background; a step saved before is left as it is."""
        with self._full_disk_named():
            self._checkpointer.wait()
        if step not in [checkpoint.step for checkpoint in self._checkpointer.checkpoints]:
            self._checkpointer.save_async(step, state, force=True)

    def restore(self, template: Any) -> tuple[int, Any] | None:
        """The newest checkpoint that all processes can read, in the shapes, dtypes and shardings of `template`.

        Returns:
            (step, state), or None where there is no checkpoint.

        Raises:
            UserError: if there are checkpoints and none can be read; all stay as they are.
        """
        steps = sorted((checkpoint.step for checkpoint in self._checkpointer.checkpoints), reverse=True)
        abstract = jax.tree.map(abstract_of, template)
        for tried, step in enumerate(steps):
            state, failed = None, ""
            try:
                with _alone():
                    state = self._checkpointer.load(step, abstract)
            except Exception as error:  # orbax and tensorstore have no common error for damaged files
                failed = str(error).partition("\n")[0] or type(error).__name__
            if agreed_maximum(bool(failed)):  # else processes would go on from different steps
                reason = failed or "by another process"
                logging.warning("checkpoint %s/%s cannot be read (%s)", self.directory, step, reason)
                continue
            for damaged in steps[:tried]:  # the steps after this one are done anew, and saved under the same numbers
                self._checkpointer.delete(damaged)
            return step, state
        if steps:
            raise UserError(f"no checkpoint in {self.directory} can be read (tried {steps}); remove it to start anew")
        return None

    @contextlib.contextmanager
    def _full_disk_named(self) -> Iterator[None]:
        """A save runs in the background, so that its failure comes with a later call."""
        try:
            yield
        except Exception as error:  # orbax and tensorstore each have their own for a full disk
            if "No space left" not in "".join(traceback.format_exception(error)):
                raise
            steps = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
            kept = f"step {max(steps)} is saved" if steps else "nothing is saved yet"
            raise UserError(
                f"no space left for {self.directory}; {kept}: free some and run the same command"
            ) from error

    @property
    def directory(self) -> str:
        return str(self._checkpointer.directory)


def _alone() -> ocp.Context:
    """Within it a process reads what it needs without waiting for others, which one that failed would leave waiting."""
    context, me = ocp.Context(), jax.process_index()
    context.multiprocessing.primary_host = me
    context.multiprocessing.active_processes = {me}
    context.multiprocessing.barrier_sync_key_prefix = f"process{me}"
    return context


def abstract_of(array: jax.Array) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding of an array, without its values."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
