"""Stop requests, from Ctrl-C, SIGTERM or a lost workdir, that loops honor at their next safe point."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from mass_jax.errors import UserError
from mass_jax.runtime.distributed import agreed_maximum

_FAILED = 1000  # among signal numbers, and above all of them


class Interrupted(Exception):
    """The user or the machine asked to stop; everything finished so far is saved."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Stop:
    """A request to stop. Every long phase polls it, so that a preemption notice is honored in time."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._checks: list[Callable[[], str]] = []

    def request(self, signum: int, _frame: FrameType | None = None) -> None:
        """Handles a signal: remembers the first; a second one stops at once."""
        if self._signum is not None:
            raise KeyboardInterrupt
        self._signum = signum
        # Not by print or logging, whose locks the interrupted code may hold.
        with contextlib.suppress(OSError):  # nobody reads stderr
            os.write(2, b"stopping at the next safe point; once more to stop at once\n")

    @contextlib.contextmanager
    def watch(self, check: Callable[[], str]) -> Iterator[None]:
        """Has every poll within the block call `check`, which returns why the run must fail, or ""."""
        self._checks.append(check)
        try:
            yield
        finally:
            self._checks.remove(check)

    def poll(self) -> None:
        """Stops all processes of the run here if any of them has to stop.

        Raises:
            Interrupted: a process received a signal.
            UserError: a check of a process failed.
        """
        failure = next(filter(None, (check() for check in self._checks)), "")
        signum = agreed_maximum(_FAILED if failure else self._signum or 0)
        if signum == _FAILED:
            raise UserError(failure or "another process of this run failed; see its error")
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
