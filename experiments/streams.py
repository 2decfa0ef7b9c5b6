"""Robust standard streams: handles closed descriptors, closed pipes, full devices and ASCII-only output."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

CLOSED_PIPE = 141  # 128 + SIGPIPE, as shells report it


def repair() -> None:
    """Makes the three standard streams usable. Called when `experiments` is imported, before any file is opened.

    A descriptor that the caller closed (`>&-`) becomes the null device. Otherwise the next opened file would get its
    number, and messages written to descriptor 1 or 2 would end up in that file. Characters that a stream cannot encode
    are written as escapes.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number: this descriptor
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 -- stays open
        elif mode == "w" and isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


class OutputLostError(BaseException):
    """Standard output cannot be written. Not an `OSError`, so that handlers of file errors do not catch it."""

    def __init__(self, cause: OSError):
        super().__init__(str(cause))
        self.cause = cause

    @property
    def status(self) -> int:
        """Exit status: `CLOSED_PIPE` if the reader is gone, otherwise 2."""
        return CLOSED_PIPE if self.cause.errno in (errno.EPIPE, errno.EIO) else 2


class _Output:
    """Standard output whose failures are raised as `OutputLostError`."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise OutputLostError(error) from None

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise OutputLostError(error) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Exits quietly when the reader of standard output is gone, and with a one-line error when the output is full.

    Raises:
        SystemExit: Always; with `CLOSED_PIPE` or 2 if the block succeeded but its output is incomplete.
    """
    output, status, lost = sys.stdout, None, None
    sys.stdout = _Output(output)
    try:
        yield
    except SystemExit as end:
        status = end.code
    except OutputLostError as error:
        lost = error
    finally:
        sys.stdout = output
    lost = _flush() or lost
    if lost is not None and status in (0, None):
        status = lost.status
        if status != CLOSED_PIPE:
            with contextlib.suppress(OSError):
                print(f"error: standard output: {lost.cause.strerror}; files already written are kept", file=sys.stderr)
    raise SystemExit(status)


def _flush() -> OutputLostError | None:
    """Flushes both streams; one that fails becomes the null device, so that the interpreter's own flush succeeds.

    Returns:
        The error on standard output, if any.
    """
    errors: dict[str, OSError] = {}
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        try:
            getattr(sys, name).flush()
        except OSError as error:
            errors[name] = error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
    return OutputLostError(errors["stdout"]) if "stdout" in errors else None
