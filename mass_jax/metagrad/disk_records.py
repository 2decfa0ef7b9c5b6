"""Records in an unnamed file, written and read ahead by a thread."""

import concurrent.futures
import os
import tempfile
from collections.abc import Sequence

import numpy as np

ALIGNMENT = 64  # bytes, for any data type


class DiskRecords:
    """Records of the steps of one inner loop in a file without a name.

    The space of all records is reserved at the first write, so that a full disk is noticed before the loop has run.

    Args:
        directory: where to create the file.
        count: number of steps.

    Raises:
        OSError: the file cannot be created.

    >>> records = DiskRecords(tempfile.gettempdir(), count=2)
    >>> for index in range(2):
    ...     records.write(index, [np.full(3, index, np.float32), np.int32(index)])
    >>> [each.tolist() for each in records.read(1)]
    [[1.0, 1.0, 1.0], 1]
    >>> records.close()
    """

    def __init__(self, directory: str, count: int):
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115  closed by `close`
        self._worker = concurrent.futures.ThreadPoolExecutor(1)
        self._pending: concurrent.futures.Future[None] | None = None
        self._ahead = -1  # index of the record that the thread reads
        self._count = count
        self._layout: list[tuple[int, int, tuple[int, ...], np.dtype]] = []
        self._size = 0
        self._buffers: list[np.ndarray] = []

    def write(self, index: int, arrays: Sequence[np.ndarray]) -> None:
        """Copies a step's arrays and starts to write them.

        Raises:
            OSError: this step or the one before cannot be written.
        """
        if not self._buffers:
            self._reserve(arrays)
        buffer = self._buffers[index % 2]
        for (start, size, _, _), array in zip(self._layout, arrays, strict=True):
            buffer[start : start + size] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._wait()
        self._pending = self._worker.submit(self._write, buffer, index * self._size)

    def read(self, index: int) -> Sequence[np.ndarray]:
        """Returns a step's arrays and starts to read those of the step before.

        Raises:
            OSError: the file cannot be written or read.
        """
        self._wait()
        buffer = self._buffers[index % 2]
        if self._ahead != index:
            self._read(buffer, index * self._size)
        self._ahead = index - 1
        if index:
            before = self._buffers[self._ahead % 2]
            self._pending = self._worker.submit(self._read, before, self._ahead * self._size)
        return [buffer[start : start + size].view(dtype).reshape(shape) for start, size, shape, dtype in self._layout]

    def close(self) -> None:
        """Removes the file."""
        self._worker.shutdown(cancel_futures=True)
        self._file.close()

    def _reserve(self, arrays: Sequence[np.ndarray]) -> None:
        """Lays out the arrays in a record and reserves the file's space."""
        for array in map(np.asarray, arrays):
            self._layout.append((self._size, array.nbytes, array.shape, array.dtype))
            self._size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        if hasattr(os, "posix_fallocate") and self._size:
            os.posix_fallocate(self._file.fileno(), 0, self._size * self._count)
        self._buffers = [np.zeros(self._size, np.uint8) for _ in range(2)]

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, buffer: np.ndarray, offset: int) -> None:
        done = 0
        while done < buffer.size:  # a call may write a part
            done += os.pwrite(self._file.fileno(), buffer[done:].data, offset + done)

    def _read(self, buffer: np.ndarray, offset: int) -> None:
        done = 0
        while done < buffer.size:
            count = os.preadv(self._file.fileno(), [buffer[done:].data], offset + done)
            if not count:
                raise OSError(f"the file of the trajectory ends at byte {offset + done}")
            done += count
