"""A pool of verifier processes: asynchronous, ordered, never hanging, never blocking whoever asks.

One thread a process waits for it; nothing here forks the calling process, which may hold JAX and many threads.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.grade import grade_quickly
from mass_jax.tasks.grading.values import MAX_ANSWER_CHARS
from mass_jax.tasks.grading.workers import wire
from mass_jax.tasks.grading.workers.limits import Limits

_TRIES = 3
_STARTS = 20
_START_SECONDS = 300.0  # at first: loading takes seconds, but on a starved machine minutes, and longer when tried again
_LONGEST_START_SECONDS = 1200.0
_GRACE_SECONDS = 30.0  # a worker that answers this long after its own limit is beyond help
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")


class Pool:
    """Worker processes that compare answers. Use it as a context manager, or call `close`.

    Args:
        workers: processes; they start at once, in the background.
        limits: of one answer.

    Raises:
        ValueError: if `workers` is below 1.
        ModuleNotFoundError: if math-verify is not installed.
    """

    def __init__(self, workers: int = 2, limits: Limits | None = None):
        if workers < 1:
            raise ValueError(f"workers={workers} verifies nothing; give at least 1")
        if importlib.util.find_spec("math_verify") is None:
            raise ModuleNotFoundError("math-verify is missing; pip install 'math-verify[antlr4-13-2]'")
        self._jobs: queue.SimpleQueue[tuple[Future[Verdict], bytes] | None] = queue.SimpleQueue()
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, gold: str, answer: str) -> "Future[Verdict]":
        """Asks for one verdict and returns at once.

        Args:
            gold, answer: answers alone, in LaTeX or plain.

        Returns:
            A future; `result()` raises RuntimeError only if worker processes cannot start at all.
        """
        future: Future[Verdict] = Future()
        if max(len(gold), len(answer)) > MAX_ANSWER_CHARS:  # nothing that long is read, nor sent
            future.set_result(grade_quickly(gold, answer) or Verdict.UNPARSABLE)
            return future
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier pool is closed; make another")
            self._jobs.put((future, wire.question(gold, answer)))
        return future

    def verify(self, pairs: Iterable[tuple[str, str]]) -> list[Verdict]:
        """Verdicts on (gold, answer) pairs, in their order."""
        return [future.result() for future in [self.submit(gold, answer) for gold, answer in pairs]]

    def close(self) -> None:
        """Ends the processes; what is being checked is finished, what waits is cancelled."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            while not self._jobs.empty():
                job = self._jobs.get()
                if job is not None:
                    job[0].cancel()
            for _ in self._threads:
                self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        """The life of a thread: one worker process at a time, jobs until the pool is closed."""
        worker = _Worker(self._limits)
        with contextlib.suppress(OSError):  # tried again when there is a job, which then reports the error
            worker.start()
        while (job := self._jobs.get()) is not None:
            future, line = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(wire.verdict(worker.answer(line)))
            except Exception as error:  # whoever waits must hear of it; the thread goes on
                worker.stop()
                future.set_exception(error)
        worker.stop()


class _Worker:
    """A worker process that is started again whenever it has died.

    It has no files, no standard streams and nothing of our environment.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process, which loads in the background."""
        self._ready = False
        self._buffer = b""
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        numbers = [str(requests), str(replies), str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", wire.WORKER, *numbers, json.dumps(dataclasses.asdict(self._limits))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(requests, replies),
                env=_environment(),
                start_new_session=True,
            )
        except OSError:
            os.close(self._requests)
            os.close(self._replies)
            raise
        finally:
            os.close(requests)
            os.close(replies)

    def stop(self) -> None:
        """Kills the process and whatever it has started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        os.close(self._requests)
        os.close(self._replies)

    def answer(self, line: bytes) -> bytes:
        """The reply to a line; a process that dies meanwhile is replaced and asked again.

        Raises:
            RuntimeError: if processes cannot start.
        """
        for _ in range(_TRIES):
            self._get_ready()
            reply = self._ask(line)
            if reply is not None:
                return reply
            self.stop()
        return wire.LOST

    def _get_ready(self) -> None:
        """Waits until there is a process that has loaded; one that is killed before is no fault of the answer's."""
        patience = _START_SECONDS
        for _ in range(_STARTS):
            if self._process is None:
                self.start()
            if self._ready or self._read_line(patience) == wire.READY:
                self._ready = True
                return
            self._raise_if_it_gave_up()
            self.stop()
            patience = min(2 * patience, _LONGEST_START_SECONDS)
        raise RuntimeError(
            f"{_STARTS} verifier processes were killed while they loaded, or had not loaded within {patience:.0f} s; "
            f"free some memory or processors"
        )

    def _ask(self, line: bytes) -> bytes | None:
        """The reply, or None if the process has died or gives none in time."""
        try:
            os.write(self._requests, line)  # shorter than a pipe's buffer, so it neither blocks nor splits
        except BrokenPipeError:
            return None
        return self._read_line(2 * self._limits.wall_seconds + _GRACE_SECONDS)

    def _raise_if_it_gave_up(self) -> None:
        """A process that was killed may be replaced; one that ended by itself would do so again."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=1.0)
            if code > 0:
                command = f"{sys.executable} -c 'import {wire.WORKER}, mass_jax.tasks.grading.symbolic'"
                raise RuntimeError(f"verifier processes end with status {code} at their start; see: {command}")

    def _read_line(self, seconds: float) -> bytes | None:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            chunk = os.read(self._replies, 4096) if wire.readable(self._replies, deadline - time.monotonic()) else b""
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"


def _environment() -> dict[str, str]:
    """What a worker sees of ours: where programs and modules are, no more."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # The hash seed decides the order of sympy's sets: with it fixed, every process computes the same way.
    return {**kept, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
