"""Stop requests from Ctrl-C, SIGTERM or a lost workdir lock, which loops honor at their next safe point."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from mass_jax.errors import UserError
from mass_jax.runtime.distributed import agreed_maximum

_FAILED = 1000  # stands for a failure among signal numbers, and is larger than all of them


class Interrupted(Exception):
    """Raised when a run stops because of a signal; finished work is saved.

    Attributes:
        exit_code: exit status of the process, 128 plus the signal number.
    """

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Stop:
    """Stop request, polled in every long phase so that preemption notices are honored in time."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._checks: list[Callable[[], str]] = []

    def request(self, signum: int, _frame: FrameType | None = None) -> None:
        """Handles a signal: records the first one; a second one raises KeyboardInterrupt at once."""
        if self._signum is not None:
            raise KeyboardInterrupt
        self._signum = signum
        # Neither print nor logging: the interrupted code may hold their locks.
        with contextlib.suppress(OSError):  # stderr may be closed
            os.write(2, b"stopping at the next safe point; repeat to stop at once\n")

    @contextlib.contextmanager
    def watch(self, check: Callable[[], str]) -> Iterator[None]:
        """Context in which every poll calls `check`, which returns why the run must fail, or ""."""
        self._checks.append(check)
        try:
            yield
        finally:
            self._checks.remove(check)

    def poll(self) -> None:
        """Stops all processes of the run if any of them must stop. All processes must call this.

        Raises:
            Interrupted: If a process received a signal.
            UserError: If a check of a process failed.
        """
        failure = next(filter(None, (check() for check in self._checks)), "")
        signum = agreed_maximum(_FAILED if failure else self._signum or 0)
        if signum == _FAILED:
            raise UserError(failure or "another process of this run failed; see its error")
        if signum:
            raise Interrupted(signum)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Context that turns SIGINT and SIGTERM into requests on the yielded `Stop`."""
    stop = Stop()
    before = {number: signal.signal(number, stop.request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
