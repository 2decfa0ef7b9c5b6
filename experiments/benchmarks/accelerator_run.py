"""Compilation in threads and timing of groups of programs, with one row per program that is written at once."""

import concurrent.futures
import contextlib
import dataclasses
import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from experiments.benchmarks import accelerator_profile
from mass_jax.metagrad.benchmark_runs import Budget, interleaved, seconds_of
from mass_jax.metagrad.report import report_of

Row = dict[str, Any]
Calls = Mapping[str, Callable[[], Any]]
_SHORT = 0.1  # seconds; calls that take less are timed several at a time
_MOST_CALLS = 20
_LONG_WARM_UP = 0.5  # seconds
_MOST_ROUNDS = 9
_ENOUGH = 6.0  # seconds of all rounds, where more than the least number of them fit
_LONGEST_WAIT = 600.0
_SHORTEST_AGAIN = 0.01  # seconds of calls that are measured again
NOT_REACHED = "not reached within --minutes"
AGAIN = ", again without compilations"


@dataclasses.dataclass(frozen=True)
class Group:
    """Programs that are measured together, in interleaved runs.

    Attributes:
        traces: functions that trace a program, by label, most wanted first.
        measure: takes the compiled programs by label, without those that could not be compiled, and returns the rows of
            their figures by label. Rows with other labels are added to the results.
        context: context of tracing, compilation and runs.
        alone: whether to compile with nothing else running, for compilations that use the device.
        options: compiler options.
    """

    traces: Mapping[str, Callable[[], Any]]
    measure: Callable[[Mapping[str, Any]], Mapping[str, Row]]
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    alone: bool = False
    options: Mapping[str, Any] | None = None


class Rows:
    """Rows of a benchmark, appended to a file of JSON lines as they are measured.

    Args:
        path: the file; earlier rows are kept.
        header: entries of every row, such as the name of the device.
    """

    def __init__(self, path: pathlib.Path, header: Row):
        self._path, self._header = path, header
        self.rows: list[Row] = []
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, label: str, row: Mapping[str, Any]) -> None:
        """Appends a row."""
        self.rows.append({"case": label} | dict(row) | self._header)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        shown = row.get("error") or ", ".join(
            f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float)
        )
        logging.info("%s: %s", label, shown)


def in_one_line(error: BaseException) -> str:
    """Returns the type and the first line of an error.

    >>> in_one_line(ValueError("too long\\nmore"))
    'ValueError: too long'
    """
    text = str(error).strip() or repr(error)
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}"


def timed(calls: Calls, repeats: int, profiles: Mapping[str, Any] | None = None) -> dict[str, Row]:
    """Times calls in interleaved rounds after a warm-up of each; one that fails gets a row with its error.

    Short calls run several times in a row, and a time is that of one of them. Rounds that take less than a second are
    repeated more often, since compilations in other threads disturb some of them.

    Args:
        calls: functions by label, most wanted first.
        repeats: least number of rounds.
        profiles: compiled programs of the calls that run once more, under the profiler, by label.

    Returns:
        `seconds` (the median), `times` and `profile` by label.

    >>> rows = timed({"a": lambda: 1, "b": lambda: 1 / 0}, repeats=2)
    >>> len(rows["a"]["times"]), rows["b"]["error"]
    (9, 'ZeroDivisionError: division by zero')
    """
    rows: dict[str, Row] = {}
    counts: dict[str, int] = {}
    total = 0.0  # seconds of a round
    for label, call in calls.items():
        try:
            warm_up = seconds_of(call)
            if warm_up < _LONG_WARM_UP:  # the first call is slower
                warm_up = seconds_of(call)
            counts[label] = min(max(math.ceil(_SHORT / max(warm_up, 1e-9)), 1), _MOST_CALLS)
            total += warm_up * counts[label]
        except Exception as error:  # running out of memory has no class of its own
            rows[label] = {"error": in_one_line(error)}

    def repeated(label: str) -> Callable[[], Any]:
        # Only the last result is kept: earlier ones would take memory.
        def run() -> Any:
            result = None
            for _ in range(counts[label]):
                result = calls[label]()
            return result

        return run

    times: dict[str, list[float]] = {label: [] for label in counts}
    rounds = max(repeats, min(_MOST_ROUNDS, math.floor(_ENOUGH / max(total, 1e-9))))
    for seconds in interleaved({label: repeated(label) for label in counts}, rounds, warm_up=False):
        for label, value in seconds.items():
            times[label].append(value / counts[label])
    for label, values in times.items():
        rows[label] = {"seconds": statistics.median(values), "times": values}
        if profiles and label in profiles:
            rows[label] |= profile_of(calls[label], profiles[label])
    return rows


def profile_of(call: Callable[[], Any], program: Any) -> Row:
    """Returns the profile of a call of a program, or its error, as an entry of a row."""
    try:
        return {"profile": accelerator_profile.profiled(call, program)}
    except Exception as error:  # the times are worth keeping
        return {"profile_error": in_one_line(error)}


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """A compiled program with its figures; the program is None if it could not be compiled or was not reached."""

    program: Any
    row: Row


class Runner:
    """Compiles groups in threads, most wanted first, and measures each once it is compiled.

    Groups whose times vary are measured again at the end, when no compilation disturbs them; those rows have their own
    labels.

    Args:
        rows: where rows are written.
        budget: no compilation and no measurement begins after its end.
        threads: number of compilations at a time.
    """

    def __init__(self, rows: Rows, budget: Budget, threads: int):
        self._rows, self._budget, self._threads = rows, budget, threads

    def run(self, groups: Sequence[Group]) -> bool:
        """Runs groups, and those with `alone` at the end; returns whether no compilation is still running."""
        pool = concurrent.futures.ThreadPoolExecutor(self._threads, "compile")
        pending = [
            (group, {label: pool.submit(self._compile, group, label) for label in group.traces})
            for group in groups
            if not group.alone
        ]
        varying: list[tuple[Group, Mapping[str, _Compiled]]] = []
        while pending and self._budget.left():
            ready = next((pair for pair in pending if all(future.done() for future in pair[1].values())), None)
            if ready is None:
                running = [future for _, futures in pending for future in futures.values() if not future.done()]
                seconds = min(self._budget.left(), _LONGEST_WAIT)
                concurrent.futures.wait(running, seconds, return_when=concurrent.futures.FIRST_COMPLETED)
                continue
            pending.remove(ready)
            measured = ready[0], {label: future.result() for label, future in ready[1].items()}
            if self._measure(*measured):
                varying.append(measured)
        pool.shutdown(wait=False, cancel_futures=True)
        for group, _ in pending:
            self._measure(group, {})
        for group, compiled in varying if self._budget.left() else ():
            self._measure(group, compiled, AGAIN)
        for group in [group for group in groups if group.alone]:
            self._measure(group, {label: self._compile(group, label) for label in group.traces})
        return all(future.done() for _, futures in pending for future in futures.values())

    def _compile(self, group: Group, label: str) -> _Compiled:
        """Traces, lowers and compiles one program."""
        row: Row = {}
        if not self._budget.left():
            return _Compiled(None, {"error": NOT_REACHED})
        try:
            with group.context():
                began = time.perf_counter()
                traced = group.traces[label]()
                row["trace_seconds"] = time.perf_counter() - began
                began = time.perf_counter()
                lowered = traced.lower()
                row["lower_seconds"] = time.perf_counter() - began
                began = time.perf_counter()
                program = lowered.compile(dict(group.options) if group.options else None)
                row["compile_seconds"] = time.perf_counter() - began
        except Exception as error:  # errors of tracing and of the compiler have no class in common
            return _Compiled(None, row | {"error": in_one_line(error)})
        report = report_of(program, row["compile_seconds"], "")
        row |= {"temp_bytes": report.temp_bytes, "argument_bytes": report.argument_bytes}
        logging.info("compiled %s in %.1f s", label, row["compile_seconds"])
        return _Compiled(program, row)

    def _measure(self, group: Group, compiled: Mapping[str, _Compiled], note: str = "") -> bool:
        """Measures a group and writes its rows, with a note after their labels; returns whether its times vary.

        A failure is a row with its error.
        """
        programs = {label: one.program for label, one in compiled.items() if one.program is not None}
        found: Mapping[str, Row] = {}
        error = NOT_REACHED
        if self._budget.left():
            error = "not measured"
            try:
                with group.context():
                    found = group.measure(programs)
            except Exception as failure:  # running out of memory has no class of its own
                error = in_one_line(failure)
        for label in dict.fromkeys([*group.traces, *found]):
            row = dict(compiled[label].row) if label in compiled else {}
            row |= found.get(label, {} if "error" in row else {"error": error})
            self._rows.write(f"{label}{note}", row)
        return any(_varies(row) for row in found.values())


def _varies(row: Row) -> bool:
    """Returns whether the median of a row's times exceeds the least by more than 5 %; short times vary always."""
    return bool("times" in row and row["seconds"] > max(1.05 * min(row["times"]), _SHORTEST_AGAIN))
