"""Orbax checkpoints of a training state: asynchronous, atomic and verified by checksums."""

import concurrent.futures
import contextlib
import pathlib
import traceback
from collections.abc import Iterator
from typing import Any, Self

import jax
from absl import logging
from orbax.checkpoint import v1 as ocp

from mass_jax.errors import UserError, first_line
from mass_jax.runtime.checksums import DamagedCheckpoint, verify, write_checksums
from mass_jax.runtime.distributed import agreed_maximum, is_first
from mass_jax.runtime.paths import check_checkpoint_path
from mass_jax.runtime.signals import Interrupted
from mass_jax.types import PyTree


class Checkpoints(contextlib.AbstractContextManager):
    """Context manager that saves and restores a pytree of arrays.

    The newest two checkpoints are kept, so that a run survives damage to the newest one. Process 0 writes the checksums
    of a checkpoint when it is complete.

    Args:
        directory: directory of the checkpoints; created if absent.

    Raises:
        UserError: If checkpoints under this path could not be read back.
    """

    def __init__(self, directory: pathlib.Path):
        check_checkpoint_path(directory)
        self._checkpointer = ocp.training.Checkpointer(
            directory.absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(2),
            cleanup_tmp_directories=True,
        )
        self._background = concurrent.futures.ThreadPoolExecutor(1, "checksums")
        self._summing: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._full_disk_named():
                self._checkpointer.wait()
                self._await_checksums()
                self._checkpointer.close()
        except Exception as error:
            if kind is None or issubclass(kind, Interrupted):  # the exception of the block takes precedence
                raise
            logging.error("the last save failed: %s", first_line(error))
        finally:
            self._background.shutdown()

    def save(self, step: int, state: PyTree) -> None:
        """Saves `state` in the background as the state after `step` steps; does nothing if that step is already saved.

        Raises:
            UserError: If the previous save ran out of disk space.
        """
        with self._full_disk_named():
            self._checkpointer.wait()
            self._await_checksums()
        if step not in [checkpoint.step for checkpoint in self._checkpointer.checkpoints]:
            response = self._checkpointer.save_async(step, state, force=True)
            if response is not None and is_first():
                self._summing = self._background.submit(self._sum_when_saved, response, step)

    def _sum_when_saved(self, response: Any, step: int) -> None:
        response.result()
        write_checksums(pathlib.Path(self.directory, str(step)))

    def _await_checksums(self) -> None:
        """Waits for the checksums of the last save; raises the exception of a failed save."""
        if self._summing is not None:
            summing, self._summing = self._summing, None
            summing.result()

    def restore(self, template: PyTree) -> tuple[int, PyTree] | None:
        """Restores the newest checkpoint that every process can read; logs why newer ones are skipped.

        Args:
            template: arrays with the shapes, dtypes and shardings to restore.

        Returns:
            (step, state), or None if there are no checkpoints.

        Raises:
            UserError: If no existing checkpoint can be read; none is deleted.
        """
        steps = sorted((checkpoint.step for checkpoint in self._checkpointer.checkpoints), reverse=True)
        abstract = jax.tree.map(abstract_of, template)
        for tried, step in enumerate(steps):
            state, failed = None, ""
            try:
                check_checkpoint(pathlib.Path(self.directory, str(step)))
            except DamagedCheckpoint as damage:
                failed = str(damage)
            if not agreed_maximum(bool(failed)):
                try:
                    with _alone():
                        state = self._checkpointer.load(step, abstract)
                except Exception as error:  # orbax and tensorstore have no common error for damaged files
                    failed = first_line(error)
                if not agreed_maximum(bool(failed)):  # else processes would resume from different steps
                    for damaged in steps[:tried]:  # these steps will be redone and saved again
                        self._checkpointer.delete(damaged)
                    return step, state
            logging.warning(
                "checkpoint %s/%s cannot be used (%s)", self.directory, step, failed or "another process cannot read it"
            )
        if steps:
            raise UserError(f"no checkpoint in {self.directory} can be read (tried {steps}); remove it to start over")
        return None

    @contextlib.contextmanager
    def _full_disk_named(self) -> Iterator[None]:
        """Turns a full disk into a `UserError`; failures of a background save surface in a later call."""
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise different errors for a full disk
            if "No space left" not in "".join(traceback.format_exception(error)):
                raise
            steps = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
            kept = f"step {max(steps)} is saved" if steps else "nothing is saved yet"
            raise UserError(
                f"no space left for {self.directory}; {kept}: free some space and rerun the same command"
            ) from error

    @property
    def directory(self) -> str:
        """Absolute path of the checkpoints."""
        return str(self._checkpointer.directory)


def check_checkpoint(directory: pathlib.Path) -> None:
    """Verifies the files of one checkpoint; logs a warning if it has no checksums.

    Raises:
        DamagedCheckpoint: If a file is missing, changed or unreadable.
    """
    if not verify(directory) and is_first():
        logging.warning("checkpoint %s has no checksums; damage to its files would go unnoticed", directory)


def _alone() -> ocp.Context:
    """Context in which a process loads without barriers, so that one that fails does not leave the others waiting."""
    context, me = ocp.Context(), jax.process_index()
    context.multiprocessing.primary_host = me
    context.multiprocessing.active_processes = {me}
    context.multiprocessing.barrier_sync_key_prefix = f"process{me}"
    return context


def abstract_of(array: jax.Array) -> jax.ShapeDtypeStruct:
    """Returns the shape, dtype and sharding of an array."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
