"""Program of a verifier process: `python -m mass_jax.tasks.grading.workers.worker`.

It loads a program module once, then forks a sandboxed checker with little memory. Only the checker parses answers; this
process forwards bytes, enforces the time limit, and forks a new checker within milliseconds when one dies. A request is
one line, which the program's `check` reads; a reply line is the value of a `Verdict`, or "lost" if checkers died for an
unknown reason.

A program module has two functions: `warm_up()` imports and prepares outside of the sandbox, before any request;
`check(line: bytes) -> Verdict` runs in the sandbox. `symbolic_answers` is the program of mathematics.
"""

import gc
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.workers import limits, wire

_TRIES = 3
_OUT_OF_TIME = (signal.SIGPROF, signal.SIGXCPU)


class Checker:
    """A forked process that checks answers one at a time.

    Args:
        bounds: Limits on the check of one answer.
        inherited: File descriptors of this process that the checker closes.
        check: Function of the program that decides one request line.
    """

    def __init__(self, bounds: limits.Limits, inherited: tuple[int, ...], check: Callable[[bytes], Verdict]):
        self.dead = False
        self._bounds = bounds
        ask_out, self._ask = os.pipe()
        self._tell, tell_in = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            for descriptor in (self._ask, self._tell, *inherited):
                os.close(descriptor)
            _serve(ask_out, tell_in, bounds, parent, check)
        os.close(ask_out)
        os.close(tell_in)

    def check(self, line: bytes) -> bytes | None:
        """Returns the reply to a line, or None if the checker died for a reason other than time; sets `dead`."""
        try:
            _write(self._ask, line)
        except BrokenPipeError:
            self.close()
            return None
        readable = wire.readable(self._tell, self._bounds.wall_seconds)
        reply = os.read(self._tell, 64) if readable else b""
        if reply.endswith(b"\n"):
            return reply
        status = self.close()
        out_of_time = not readable or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in _OUT_OF_TIME)
        return wire.reply(Verdict.TIMED_OUT) if out_of_time else None

    def close(self) -> int:
        """Kills the checker and returns its wait status."""
        self.dead = True
        os.kill(self._pid, signal.SIGKILL)
        os.close(self._ask)
        os.close(self._tell)
        return os.waitpid(self._pid, 0)[1]


def _serve(requests: int, replies: int, bounds: limits.Limits, parent: int, check: Callable[[bytes], Verdict]) -> None:
    """Runs a checker: applies the limits, then answers lines until the pipe closes. Never returns."""
    try:
        limits.die_with_parent(parent)
        limits.restrain(bounds.memory_bytes)
        limits.seal()
        buffered = b""
        while True:
            while b"\n" not in buffered:
                chunk = os.read(requests, 1 << 16)
                if not chunk:
                    os._exit(0)
                buffered += chunk
            line, _, buffered = buffered.partition(b"\n")
            signal.setitimer(signal.ITIMER_PROF, bounds.cpu_seconds)  # on expiry, the kernel kills this process
            try:
                verdict = check(line)
            except MemoryError:
                verdict = Verdict.TIMED_OUT  # time and memory limits share one verdict
            except Exception:  # sympy and other parsers raise many exceptions on malformed text
                verdict = Verdict.UNPARSABLE
            signal.setitimer(signal.ITIMER_PROF, 0)
            _write(replies, wire.reply(verdict))
    finally:
        os._exit(1)


def main() -> None:
    """Serves requests from one pipe to another until the first one closes.

    Command-line arguments: file descriptors of requests and replies, the parent's process id, limits as JSON, and the
    name of the program module.
    """
    requests, replies, parent = map(int, sys.argv[1:4])
    bounds = limits.Limits(**json.loads(sys.argv[4]))
    limits.die_with_parent(parent)
    logging.disable()  # math-verify warns for every answer that its own timeout is off
    program = importlib.import_module(sys.argv[5])
    program.warm_up()
    gc.collect()
    gc.freeze()  # keeps the pages of loaded modules shared with the checkers
    checker = Checker(bounds, (requests, replies), program.check)
    _write(replies, wire.READY)
    with os.fdopen(requests, "rb") as lines:
        for line in lines:
            reply = None
            for _ in range(_TRIES):
                if checker.dead:
                    checker = Checker(bounds, (requests, replies), program.check)
                reply = checker.check(line)
                if reply is not None:
                    break
            _write(replies, reply or wire.LOST)
            if checker.dead:  # fork the next one before a request waits for it
                checker = Checker(bounds, (requests, replies), program.check)
    checker.close()


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main()
