"""Checkpoints of a training state by orbax: asynchronous, atomic, checksummed; the newest sound one is used."""

import concurrent.futures
import contextlib
import pathlib
import traceback
from collections.abc import Iterator
from typing import Any, Self

import jax
from absl import logging
from orbax.checkpoint import v1 as ocp

from mass_jax.errors import UserError
from mass_jax.runtime.checksums import Damaged, verify, write_checksums
from mass_jax.runtime.distributed import agreed_maximum, is_first
from mass_jax.runtime.paths import check_checkpoint_path
from mass_jax.runtime.signals import Interrupted


class Checkpoints(contextlib.AbstractContextManager):
    """Saves and restores one pytree of arrays, keeping the newest two.

    Two, because a damaged newest one must not cost the run. Process 0 writes the checksums of a checkpoint right after
    it is complete.

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
            if kind is None or issubclass(kind, Interrupted):  # else the block's own error is the one to show
                raise
            logging.error("the last save failed: %s", str(error).partition("\n")[0] or type(error).__name__)
        finally:
            self._background.shutdown()

    def save(self, step: int, state: Any) -> None:
        """Starts saving `state` as after `step` steps, in the background; a step saved before is left as it is."""
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
        """Waits for the checksums of the last save; raises what made it or them fail."""
        if self._summing is not None:
            summing, self._summing = self._summing, None
            summing.result()

    def restore(self, template: Any) -> tuple[int, Any] | None:
        """Restores the newest checkpoint that is sound in all processes; logs why newer ones are passed over.

        Args:
            template: arrays with the shapes, dtypes and shardings to restore.

        Returns:
            (step, state), or None where there is no checkpoint.

        Raises:
            UserError: if there are checkpoints and none is sound; all stay as they are.
        """
        steps = sorted((checkpoint.step for checkpoint in self._checkpointer.checkpoints), reverse=True)
        abstract = jax.tree.map(abstract_of, template)
        for tried, step in enumerate(steps):
            state, failed = None, ""
            try:
                check_checkpoint(pathlib.Path(self.directory, str(step)))
            except Damaged as damage:
                failed = str(damage)
            if not agreed_maximum(bool(failed)):
                try:
                    with _alone():
                        state = self._checkpointer.load(step, abstract)
                except Exception as error:  # orbax and tensorstore have no common error for damaged files
                    failed = str(error).partition("\n")[0] or type(error).__name__
                if not agreed_maximum(bool(failed)):  # else processes would go on from different steps
                    for damaged in steps[:tried]:  # the steps after this one are redone and saved again
                        self._checkpointer.delete(damaged)
                    return step, state
            logging.warning(
                "checkpoint %s/%s cannot be used (%s)", self.directory, step, failed or "by another process"
            )
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


def check_checkpoint(directory: pathlib.Path) -> None:
    """Verifies the files of one checkpoint; logs a warning if it has no checksums.

    Raises:
        Damaged: a file is missing, changed or unreadable.
    """
    if not verify(directory) and is_first():
        logging.warning("checkpoint %s has no checksums; damage to its files would go unnoticed", directory)


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
