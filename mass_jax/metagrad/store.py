"""Stores hold the trajectory of a long inner loop outside of the device, in host memory or on disk."""

import abc
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mass_jax.errors import UserError
from mass_jax.metagrad.disk_records import DiskRecords

GIB = 2**30


class Records(Protocol):
    """Records of the steps of one inner loop; each is a list of arrays, of the same shapes for all steps."""

    def write(self, index: int, arrays: Sequence[np.ndarray]) -> None:
        """Copies a step's arrays. Steps are written in order, one of them perhaps repeatedly."""

    def read(self, index: int) -> Sequence[np.ndarray]:
        """Returns the arrays of a step, valid until the second next read. Steps are usually read in reverse order."""

    def close(self) -> None:
        """Frees all records; may be called again."""


class Store(abc.ABC):
    """Base class of stores; subclasses are frozen dataclasses, so that equal stores share compiled programs."""

    @abc.abstractmethod
    def open(self, count: int) -> Records:
        """Returns empty records for `count` steps; called on the host at the start of each forward pass."""

    def check(self, record_bytes: int, count: int) -> None:  # noqa: B027  optional
        """Raises a UserError, while the program is traced, if the records do not fit."""


@dataclasses.dataclass(frozen=True)
class HostStore(Store):
    """Keeps the trajectory in the host's memory, so that device memory does not grow with the number of steps.

    On a CPU, device and host share their memory; only the compiled program's temporaries become constant.

    >>> import jax.numpy as jnp, optax
    >>> from mass_jax import metagrad as mg
    >>> loss = mg.WeightedLoss(lambda params, batch: (params - batch) ** 2)
    >>> out = mg.meta_gradient(loss, lambda p, b: (p - b) ** 2, jnp.float32(0.0), jnp.ones(2), jnp.array([1.0, -1.0]),
    ...                        jnp.float32(1.0), optimizer=optax.sgd(0.01), num_steps=100,
    ...                        adjoint=mg.WeightedMixedMode(store=mg.HostStore()))
    >>> bool((out.meta[0] < 0) & (out.meta[1] > 0))
    True
    """

    def open(self, count: int) -> Records:
        """See `Store`."""
        return _HostRecords(count)


@dataclasses.dataclass(frozen=True)
class DiskStore(Store):
    """Keeps the trajectory in a file without a name, which the system removes when the process ends for any reason.

    Two records are in memory at a time: one that the program uses, and one that a thread writes or reads ahead.

    Attributes:
        directory: where to create the file; None is the system's directory of temporary files, such as $TMPDIR.

    >>> DiskStore("/no/such").check(record_bytes=8, count=2)
    Traceback (most recent call last):
    mass_jax.errors.UserError: the trajectory cannot be stored in '/no/such' (No such file or directory); give another \
directory, as in --adjoint_store=disk:DIRECTORY
    """

    directory: str | None = None

    @property
    def path(self) -> str:
        """The directory of the file."""
        return os.path.expanduser(self.directory) if self.directory else tempfile.gettempdir()

    def open(self, count: int) -> Records:
        """See `Store`.

        Raises:
            UserError: the file cannot be created.
        """
        try:
            return DiskRecords(self.path, count)
        except OSError as error:
            raise _unusable(self.path, error) from None

    def check(self, record_bytes: int, count: int) -> None:
        """Raises a UserError if the directory cannot be written or has too little space."""
        try:
            tempfile.TemporaryFile(dir=self.path).close()
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise _unusable(self.path, error) from None
        if free < record_bytes * count:
            raise UserError(
                f"the trajectory of {count} steps needs {record_bytes * count / GIB:.3g} GiB, but {self.path!r} has "
                f"{free / GIB:.3g} GiB free; give another directory, as in --adjoint_store=disk:DIRECTORY"
            )


class _HostRecords:
    """Records in NumPy arrays."""

    def __init__(self, count: int):
        self._records: list[Sequence[np.ndarray]] = [()] * count

    def write(self, index: int, arrays: Sequence[np.ndarray]) -> None:
        self._records[index] = [np.array(each) for each in arrays]

    def read(self, index: int) -> Sequence[np.ndarray]:
        return self._records[index]

    def close(self) -> None:
        self._records.clear()


def _unusable(path: str, error: OSError) -> UserError:
    return UserError(
        f"the trajectory cannot be stored in {path!r} ({error.strerror}); give another directory, as in "
        "--adjoint_store=disk:DIRECTORY"
    )
