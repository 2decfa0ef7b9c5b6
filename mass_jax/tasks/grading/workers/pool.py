"""Asynchronous pool of verifier processes, which bounds the time of every answer.

One thread per process waits for its replies. The calling process is never forked, since it may hold JAX and threads.
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
from typing import Self

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.grade import grade_quickly
from mass_jax.tasks.grading.values import MAX_ANSWER_CHARS
from mass_jax.tasks.grading.workers import wire
from mass_jax.tasks.grading.workers.limits import Limits

_TRIES = 3
_STARTS = 20
_START_SECONDS = 300.0  # for the first start, and doubled per retry: loading takes seconds, but minutes under load
_LONGEST_START_SECONDS = 1200.0
_GRACE_SECONDS = 30.0  # time past its own limit after which a worker is considered dead
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")


class Processes:
    """Worker processes that run one program. Use it as a context manager, or call `close`.

    Args:
        program: Name of the program module; see `worker`.
        workers: Number of processes; they start immediately, in the background.
        limits: Limits on the check of one answer.

    Raises:
        ValueError: If `workers` is below 1.
    """

    def __init__(self, program: str, workers: int = 2, limits: Limits | None = None):
        if workers < 1:
            raise ValueError(f"workers={workers} must be at least 1")
        self._program = program
        self._jobs: queue.SimpleQueue[tuple[Future[Verdict], bytes] | None] = queue.SimpleQueue()
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def send(self, line: bytes) -> "Future[Verdict]":
        """Starts checking one request line and returns immediately.

        Args:
            line: Request of at most `wire.MAX_LINE_BYTES` bytes that ends with its only newline.

        Returns:
            A future of the verdict; `result()` raises RuntimeError only if worker processes cannot start.

        Raises:
            RuntimeError: If the processes are closed.
        """
        future: Future[Verdict] = Future()
        if len(line) > wire.MAX_LINE_BYTES:
            future.set_result(Verdict.UNPARSABLE)
            return future
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier pool is closed; create a new one")
            self._jobs.put((future, line))
        return future

    def close(self) -> None:
        """Stops the processes; running checks finish, waiting ones are canceled."""
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        """Runs one thread: passes jobs to a worker process until the pool is closed."""
        worker = _Worker(self._program, self._limits)
        with contextlib.suppress(OSError):  # retried for the first job, which then reports the error
            worker.start()
        while (job := self._jobs.get()) is not None:
            future, line = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(wire.verdict(worker.answer(line)))
            except Exception as error:  # reported through the future; the thread continues
                worker.stop()
                future.set_exception(error)
        worker.stop()


class Pool(Processes):
    """Worker processes that compare symbolic answers. Use it as a context manager, or call `close`.

    Args:
        workers: Number of processes; they start immediately, in the background.
        limits: Limits on the check of one answer.

    Raises:
        ValueError: If `workers` is below 1.
        ModuleNotFoundError: If math-verify is not installed.
    """

    def __init__(self, workers: int = 2, limits: Limits | None = None):
        if importlib.util.find_spec("math_verify") is None:
            raise ModuleNotFoundError("math-verify is missing; pip install 'math-verify[antlr4-13-2]'")
        super().__init__(wire.SYMBOLIC_ANSWERS, workers, limits)

    def submit(self, gold: str, answer: str) -> "Future[Verdict]":
        """Starts comparing an answer with a gold answer and returns immediately.

        Args:
            gold: Gold answer in LaTeX or plain text.
            answer: Answer in LaTeX or plain text, without the rest of the response.

        Returns:
            A future of the verdict; `result()` raises RuntimeError only if worker processes cannot start.

        Raises:
            RuntimeError: If the pool is closed.
        """
        if max(len(gold), len(answer)) > MAX_ANSWER_CHARS:  # too long to parse or to send
            future: Future[Verdict] = Future()
            future.set_result(grade_quickly(gold, answer) or Verdict.UNPARSABLE)
            return future
        return self.send(wire.question(gold, answer))

    def verify(self, pairs: Iterable[tuple[str, str]]) -> list[Verdict]:
        """Compares (gold, answer) pairs and returns the verdicts in order."""
        return [future.result() for future in [self.submit(gold, answer) for gold, answer in pairs]]


class _Worker:
    """A worker process that is restarted whenever it dies.

    It inherits no files, no standard streams and no environment variables beyond search paths.
    """

    def __init__(self, program: str, limits: Limits):
        self._program = program
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process, which loads in the background."""
        self._ready = False
        self._buffer = b""
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        bounds = json.dumps(dataclasses.asdict(self._limits))
        numbers = [str(requests), str(replies), str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", wire.WORKER, *numbers, bounds, self._program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(requests, replies),
                env=environment(),
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
        """Kills the process and its children."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        os.close(self._requests)
        os.close(self._replies)

    def answer(self, line: bytes) -> bytes:
        """Returns the reply to a request line; a process that dies is replaced and the request repeated.

        Raises:
            RuntimeError: If processes cannot start.
        """
        for _ in range(_TRIES):
            self._get_ready()
            reply = self._ask(line)
            if reply is not None:
                return reply
            self.stop()
        return wire.LOST

    def _get_ready(self) -> None:
        """Waits for a loaded process, restarting processes that are killed while loading."""
        patience = _START_SECONDS
        for _ in range(_STARTS):
            if self._process is None:
                self.start()
            if self._ready or self._read_line(patience) == wire.READY:
                self._ready = True
                return
            self._raise_if_exited()
            self.stop()
            patience = min(2 * patience, _LONGEST_START_SECONDS)
        raise RuntimeError(
            f"{_STARTS} verifier processes were killed while loading or did not load within {patience:.0f} s; "
            f"free some memory or CPUs"
        )

    def _ask(self, line: bytes) -> bytes | None:
        """Returns the reply, or None if the process dies or does not reply in time."""
        try:
            os.write(self._requests, line)  # shorter than a pipe's buffer, so the write is atomic
        except BrokenPipeError:
            return None
        return self._read_line(2 * self._limits.wall_seconds + _GRACE_SECONDS)

    def _raise_if_exited(self) -> None:
        """Raises if the process exited by itself, which a restart would not fix."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=1.0)
            if code > 0:
                command = f"{sys.executable} -c 'import {wire.WORKER}, {self._program}'"
                raise RuntimeError(f"verifier processes exit with status {code} at startup; to see why, run: {command}")

    def _read_line(self, seconds: float) -> bytes | None:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            chunk = os.read(self._replies, 4096) if wire.readable(self._replies, deadline - time.monotonic()) else b""
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"


def environment() -> dict[str, str]:
    """Returns the environment of a worker: search paths for programs and modules only."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # A fixed hash seed fixes the order of sympy's sets, so that all processes compute alike.
    return {**kept, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
