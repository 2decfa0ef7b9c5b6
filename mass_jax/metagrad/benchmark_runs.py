"""Compilation in parallel threads and interleaved timing of programs, within a time budget."""

import concurrent.futures
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from mass_jax.errors import UserError
from mass_jax.metagrad.report import CompiledReport, report_of

Progress = Callable[[str], None]


class Budget:
    """Time that a benchmark may take, counted from the creation of this object.

    Args:
        seconds: the limit; infinity by default.
    """

    def __init__(self, seconds: float = math.inf):
        self._seconds, self._began = seconds, time.perf_counter()

    def left(self) -> float:
        """Returns the seconds that are left; 0 once the budget is spent."""
        return max(self._seconds - (time.perf_counter() - self._began), 0.0)

    def part(self, share: float) -> "Budget":
        """Returns a budget of a share of the seconds that are left."""
        return Budget(self.left() * share)


@dataclasses.dataclass(frozen=True)
class Program:
    """A program after its compilation.

    Attributes:
        name: name of the case.
        run: the executable; None if it could not be compiled.
        report: memory as reported by the compiler, and the seconds of compilation; None if it could not be compiled.
        failure: first line of the error message; empty if it was compiled.
    """

    name: str
    run: Callable[..., Any] | None
    report: CompiledReport | None
    failure: str = ""


def compile_all(
    lowerings: Mapping[str, Callable[[], jax.stages.Lowered]],
    *,
    threads: int = 0,
    budget: Budget | None = None,
    progress: Progress = lambda line: None,
) -> Iterator[Program]:
    """Compiles programs in parallel threads, in order, and yields each one when it is finished.

    Functions are traced in the calling thread, whose JAX configuration applies, while others compile. The seconds of a
    compilation include the wait for cores that other compilations use.

    Args:
        lowerings: functions that trace and lower a program, by name, most wanted first.
        threads: number of compilations at a time; 0 uses the number of cores.
        budget: no compilation begins after its end; the programs that are left are not yielded.
        progress: called with a line for each finished program.
    """
    budget, threads, began = budget or Budget(), threads or os.cpu_count() or 1, time.perf_counter()
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    running: set[concurrent.futures.Future[Program | None]] = set()
    count = 0

    def finished() -> Iterator[Program]:
        nonlocal running, count
        done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in done:
            program = future.result()
            if program is None:
                continue
            count += 1
            found = f"{program.report.temp_bytes / 2**20:.1f} MiB" if program.report else program.failure
            seconds = time.perf_counter() - began
            progress(f"compiled {count} of {len(lowerings)} in {seconds:.1f} s: {program.name}: {found}")
            yield program

    try:
        for name, lower in lowerings.items():
            while len(running) > threads:  # one more is ready to start
                yield from finished()
            if budget.left():
                running.add(_submit(pool, name, lower, budget))
        while running:
            yield from finished()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _submit(
    pool: concurrent.futures.Executor, name: str, lower: Callable[[], jax.stages.Lowered], budget: Budget
) -> concurrent.futures.Future[Program | None]:
    """Lowers a program in this thread and compiles it in another one."""
    try:
        lowered = lower()
    except (UserError, TypeError, NotImplementedError) as error:  # forward mode through a custom_vjp is a TypeError
        return pool.submit(_failed, name, error)
    return pool.submit(_compile, name, lowered, budget)


def _compile(name: str, lowered: jax.stages.Lowered, budget: Budget) -> Program | None:
    """Compiles a program if time is left; one that does not fit the device becomes a failure."""
    if not budget.left():
        return None
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return _failed(name, error)
    seconds = time.perf_counter() - start
    return Program(name, compiled, report_of(compiled, seconds, jax.devices()[0].device_kind))


def _failed(name: str, error: Exception) -> Program:
    """Returns a program that could not be compiled."""
    return Program(name, None, None, " ".join(str(error).split("\n\n", maxsplit=1)[0].split())[:300])


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int | Mapping[str, int],
    *,
    budget: Budget | None = None,
    warm_up: bool = True,
) -> Iterator[dict[str, float]]:
    """Times calls in rounds, every call once per round, so that a change of the machine's load meets all of them.

    Each call first runs once as a warm-up. Within a budget, warm-ups end when the time that is left is needed for a
    round of the calls so far, and calls are skipped that would not end in time.

    Args:
        calls: functions by name, most wanted first; results are waited for with `jax.block_until_ready`.
        rounds: number of timed runs of each call, or of all.
        budget: time that the warm-ups and rounds may take.
        warm_up: whether each call runs once before the rounds; False if all have run already.

    Yields:
        Wall-clock seconds by name, after each round that timed any call.

    >>> [sorted(seconds) for seconds in interleaved({"a": lambda: 1, "b": lambda: 2}, rounds=2)]
    [['a', 'b'], ['a', 'b']]
    """
    budget = budget or Budget()
    counts = dict.fromkeys(calls, rounds) if isinstance(rounds, int) else rounds
    last: dict[str, float] = {}
    for name, call in calls.items():
        if counts[name] > 0 and budget.left() > sum(last.values()):
            last[name] = seconds_of(call) if warm_up else 0.0
    for turn in range(max(counts.values(), default=0)):
        times: dict[str, float] = {}
        for name in last:
            if turn < counts[name] and budget.left() > last[name]:
                times[name] = last[name] = seconds_of(calls[name])
        if not times:
            return
        yield times


def seconds_of(call: Callable[[], Any]) -> float:
    """Returns the wall-clock seconds of a call, including the wait for its result."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start
