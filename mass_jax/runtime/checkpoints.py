"""Checkpoints of a training state by orbax: asynchronous, atomic, the newest sound one is used."""

import contextlib
import pathlib
from typing import Any, Self

import jax
from absl import logging
from orbax.checkpoint import v1 as ocp

from mass_jax.errors import UserError


class Checkpoints(contextlib.AbstractContextManager):
    """Saves and restores one pytree of arrays, keeping the newest two.

    Two, because a damaged newest one must not cost the run.

    Args:
        directory: where; made if absent.
    """

    def __init__(self, directory: pathlib.Path):
        self._checkpointer = ocp.training.Checkpointer(
            directory.absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(2),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpointer.close()

    def save(self, step: int, state: Any) -> None:
        """Starts saving `state` as after `step` steps, in the background; a step saved before is left as it is."""
        self._checkpointer.wait()
        if step not in [checkpoint.step for checkpoint in self._checkpointer.checkpoints]:
            self._checkpointer.save_async(step, state, force=True)

    def restore(self, template: Any) -> tuple[int, Any] | None:
        """The newest checkpoint that can be read, in the shapes, dtypes and shardings of `template`.

        Returns:
            (step, state), or None where there is no checkpoint.

        Raises:
            UserError: if there are checkpoints and none can be read; all stay as they are.
        """
        steps = sorted((checkpoint.step for checkpoint in self._checkpointer.checkpoints), reverse=True)
        abstract = jax.tree.map(ocp_abstract, template)
        for tried, step in enumerate(steps):
            try:
                state = self._checkpointer.load(step, abstract)
            except Exception as error:  # orbax and tensorstore have no common error for damaged files
                reason = str(error).splitlines()[0]
                logging.warning("checkpoint %s/%s cannot be read (%s)", self.directory, step, reason)
                continue
            for damaged in steps[:tried]:  # the steps after this one are done anew, and saved under the same numbers
                self._checkpointer.delete(damaged)
            return step, state
        if steps:
            raise UserError(f"no checkpoint in {self.directory} can be read (tried {steps}); remove it to start anew")
        return None

    @property
    def directory(self) -> str:
        return str(self._checkpointer.directory)


def ocp_abstract(array: jax.Array) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding of an array, without its values."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
