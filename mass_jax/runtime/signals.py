"""Ctrl-C and SIGTERM as a request that the loop honours at its next safe point."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from mass_jax.runtime.distributed import agreed_maximum


class Interrupted(Exception):
    """The user or the machine asked to stop; everything finished so far is saved."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Stop:
    """Whether a stop was asked for. Every long phase polls it, so that a preemption notice is honoured in time."""

    def __init__(self) -> None:
        self._signum: int | None = None

    def request(self, signum: int, _frame: FrameType | None = None) -> None:
        """Signal handler: remembers the first signal; a second one stops at once."""
        if self._signum is not None:
            raise KeyboardInterrupt
        self._signum = signum
        # Not by print or logging, whose locks the interrupted code may hold.
        with contextlib.suppress(OSError):  # nobody reads stderr
            os.write(2, b"stopping at the next safe point; once more to stop at once\n")

    def poll(self) -> None:
        """Raises `Interrupted` if a stop was asked for, of this process or any other of the run: all stop here."""
        signum = agreed_maximum(self._signum or 0)
        if signum:
            raise Interrupted(signum)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turns SIGINT and SIGTERM into requests on the yielded `Stop`, for the time of the block."""
    stop = Stop()
    before = {number: signal.signal(number, stop.request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
