"""Measurements of `experiments.bench_metagrad`: compiled memory, interleaved times, errors, peaks and traces."""

import dataclasses
import functools
import importlib.util
import math
import os
import pathlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from experiments.benchmarks import metagrad_peak, metagrad_trace
from experiments.benchmarks.metagrad_cases import WALL_CASES, Case, Preset, cases, rate_of
from experiments.benchmarks.metagrad_programs import PEERS, draw, function_of, lower
from experiments.benchmarks.rows import Rows
from mass_jax.metagrad.benchmark_runs import Budget, compile_all, interleaved
from mass_jax.metagrad.report import CompiledReport
from third_party.peers import problem

COMPILE_SHARE = 0.5  # of the time budget
WANTED = ("WeightedMixedMode", "FirstOrder")  # adjoints of a preset that come first within a time budget


@dataclasses.dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        minutes: time budget; infinity by default.
        threads: number of compilations at a time; 0 uses the number of cores.
        peaks: cases whose peak memory is measured in a process of their own: "none", "peers" or "all".
        profile: directory of the traces; None writes none.
    """

    minutes: float = math.inf
    threads: int = 0
    peaks: str = "peers"
    profile: pathlib.Path | None = None


def row_of(case: Case, size: problem.Size, dtype: str, tasks: int = 1, **measured: Any) -> dict[str, Any]:
    """Returns the row of a case, with None for values that are not measured yet."""
    adapted = f"LoRA rank {size.rank}" if size.rank else "all parameters"
    return {
        "adjoint": case.adjoint,
        "policy": case.policy,
        "optimizer": case.optimizer,
        "model": f"Llama {size.layers}x{size.width}, vocabulary {size.vocab}, {adapted}",
        "K": case.num_steps,
        "m": size.examples,
        "tokens": size.tokens,
        "tasks": tasks,
        "dtype": dtype,
        "temp_bytes": None,
        "peak_bytes": None,
        "seconds": None,
        "compile_seconds": None,
        "rel_error": None,
        **measured,
    }


class Run(NamedTuple):
    """An unfinished row, the call that it measures, its case and whether its relative error is needed."""

    row: dict[str, Any]
    call: Callable[[], Any]
    case: Case
    compared: bool


class Bench:
    """Problem of one preset, sampled once, and the rows of its cases.

    Args:
        preset: settings of the benchmark.
        rows: finished rows, to which new ones are added.
        options: how to measure.
    """

    def __init__(self, preset: Preset, rows: Rows, options: Options):
        self.preset, self.rows, self.options = preset, rows, options
        self.budget = Budget(60 * options.minutes)
        drawn = jax.jit(lambda key: draw(key, preset.size, preset.dtype, preset.tasks))
        self.data = drawn(jax.random.key(0))
        self.failures: dict[str, str] = {}
        self._references: dict[tuple[str, int], np.ndarray] = {}

    @property
    def in_order(self) -> bool:
        """Whether cases are measured in their order; within a time budget, those of a preset are sorted by interest."""
        return bool(self.preset.own) or math.isinf(self.options.minutes)

    def size_of(self, case: Case) -> problem.Size:
        """Returns the size of the preset with the number of examples of the case."""
        return dataclasses.replace(self.preset.size, examples=case.examples or self.preset.size.examples)

    def row(self, case: Case) -> dict[str, Any]:
        """Returns the row of a case; what is measured already is filled in."""
        fresh = row_of(case, self.size_of(case), self.preset.dtype, self.preset.tasks)
        return fresh | (self.rows.get(fresh) or {})

    def is_compiled(self, case: Case) -> bool:
        """Returns whether the row of a case exists."""
        return self.row(case)["temp_bytes"] is not None

    def is_timed(self, case: Case) -> bool:
        """Returns whether a case has all repetitions."""
        row = self.row(case)
        return row["seconds"] is not None and len(row.get("times", ())) >= self.preset.rounds

    def is_compared(self, case: Case) -> bool:
        """Returns whether a case can be compared with the float64 reference."""
        same = case.num_steps == self.preset.inner_steps and self.size_of(case) == self.preset.size
        return self.preset.float64 and same

    def reference(self, case: Case) -> np.ndarray:
        """Returns the gradient by ReverseUnroll in float64 on the same values, computed once per optimizer and K."""
        key = (case.optimizer, case.num_steps)
        if key not in self._references:
            with jax.enable_x64(True):
                wide = jax.tree.map(lambda x: x.astype("float64") if x.dtype == jnp.float32 else x, self.data)
                exact = Case("ReverseUnroll(step)", remat="block", loss_chunk=self.preset.loss_chunk)
                exact = dataclasses.replace(exact, optimizer=case.optimizer, num_steps=case.num_steps)
                function = function_of(exact, self.preset.size, self.preset.tasks)
                self._references[key] = np.asarray(jax.jit(function)(wide))
        return self._references[key]


def measure(preset: Preset, rows: Rows, options: Options = Options()) -> list[str]:
    """Measures what is missing in `rows`, which save every compilation, timing round, error and peak at once.

    In a timing round every case runs once, so that finished rounds of an interrupted run stay comparable.

    Args:
        preset: settings of the benchmark.
        rows: finished rows, to which new ones are added.
        options: how to measure.

    Returns:
        The cases that were not measured, with the reason.
    """
    bench = Bench(preset, rows, options)
    wanted = _most_wanted(bench)
    timed = [case for case in wanted if case.timed]
    if options.profile or not all(map(bench.is_timed, timed)):
        runs = list(_compiled(bench, timed, bench.budget.part(COMPILE_SHARE)))
        runs.sort(key=lambda run: timed.index(run.case))
        first = runs if bench.in_order else [run for run in runs if run.case.adjoint in WANTED]
        runs = [*first, *_torch_runs(bench), *(run for run in runs if run not in first)]
        _time(bench, runs)
        _trace(bench, runs)
        _peaks(bench, runs)
        _errors(bench, runs)
    rest = [case for case in wanted if not bench.is_compiled(case) or _lacks_error(bench, case)]
    for run in _compiled(bench, [case for case in rest if case.label not in bench.failures], bench.budget):
        _errors(bench, [run])
    return _not_measured(bench, wanted)


def _most_wanted(bench: Bench) -> list[Case]:
    """Returns the cases in the order in which they are measured."""
    found = cases(bench.preset)
    return found if bench.in_order else sorted(found, key=lambda case: case.adjoint not in WANTED)


def _not_measured(bench: Bench, wanted: Sequence[Case]) -> list[str]:
    """Returns the cases that lack compiled memory or times, with the reason."""
    lines = [f"{name}: {reason}" for name, reason in bench.failures.items()]
    for case in wanted:
        if case.label in bench.failures:
            continue
        if not bench.is_compiled(case):
            lines.append(f"{case.label}: not reached")
        elif case.timed and bench.row(case)["seconds"] is None:
            lines.append(f"{case.label}: compiled, its timing was not reached")
    return lines


def measure_wall(rows: Rows, options: Options = Options()) -> list[str]:
    """Compiles the cases of the `wall` preset that are missing in `rows`; returns those that were not reached."""
    left = {
        f"{case.label}, {size.layers} layers": (size, case)
        for size, case in WALL_CASES
        if rows.get(row_of(case, size, "float32")) is None
    }
    lowerings = {name: functools.partial(lower, case, size, "float32") for name, (size, case) in left.items()}
    budget = Budget(60 * options.minutes)
    for program in compile_all(lowerings, threads=options.threads, budget=budget, progress=logging.info):
        size, case = left.pop(program.name)
        if program.report is not None:
            rows.keep(row_of(case, size, "float32", **_memory(program.report)))
    return [f"{name}: not reached" for name in left]


def _memory(report: CompiledReport) -> dict[str, Any]:
    """Returns the columns that the compiler measures."""
    return {"temp_bytes": report.temp_bytes, "compile_seconds": report.compile_seconds}


def _compiled(bench: Bench, wanted: Sequence[Case], budget: Budget) -> Iterator[Run]:
    """Compiles cases in parallel and saves their rows; earlier measurements of them are kept."""
    by_label = {case.label: case for case in wanted}
    preset = bench.preset
    lowerings = {
        label: functools.partial(lower, case, bench.size_of(case), preset.dtype, preset.tasks)
        for label, case in by_label.items()
    }
    for program in compile_all(lowerings, threads=bench.options.threads, budget=budget, progress=logging.info):
        case = by_label[program.name]
        if program.run is None or program.report is None:
            bench.failures[case.label] = program.failure
            continue
        found = {name: value for name, value in bench.row(case).items() if value is not None}
        row = row_of(case, bench.size_of(case), preset.dtype, preset.tasks, **_memory(program.report)) | found
        bench.rows.keep(row)
        yield Run(row, functools.partial(program.run, bench.data), case, bench.is_compared(case))


def _torch_runs(bench: Bench) -> list[Run]:
    """Returns the runs of the PyTorch peers whose packages are installed."""
    if not bench.preset.has_peers:
        return []
    missing = [name for name in ("torch", *PEERS.values()) if importlib.util.find_spec(name) is None]
    if missing:
        logging.info("peers that need %s are left out, since it is not installed", " or ".join(missing))
    if "torch" in missing:
        return []
    from third_party.peers import torch_peers

    runs = []
    for name in (name for name, package in PEERS.items() if package not in missing):
        case = Case(f"peer: {name}", num_steps=bench.preset.inner_steps)
        run = functools.partial(torch_peers.PEERS[name], bench.preset.size, bench.data, rate_of("sgd"), case.num_steps)
        runs.append(Run(bench.row(case), run, case, bench.preset.float64))
    return runs


def _time(bench: Bench, runs: Sequence[Run]) -> None:
    """Adds the missing repetitions in interleaved rounds, and fills in medians."""
    by_label = {run.case.label: run for run in runs}
    rounds = {label: bench.preset.rounds - len(run.row.get("times", ())) for label, run in by_label.items()}
    calls = {label: run.call for label, run in by_label.items()}
    for turn, seconds in enumerate(interleaved(calls, rounds, budget=bench.budget), 1):
        for label, each in seconds.items():
            row = by_label[label].row
            row["times"] = [*row.get("times", ()), each]
        bench.rows.keep(*(by_label[label].row for label in seconds))
        logging.info("round %d of %d, load average %.1f", turn, max(rounds.values()), os.getloadavg()[0])
    timed = [run.row for run in runs if run.row.get("times")]
    for row in timed:
        row["seconds"] = statistics.median(row["times"])
    bench.rows.keep(*timed)


def _trace(bench: Bench, runs: Sequence[Run]) -> None:
    """Writes a trace and a memory profile of one repetition of each compiled case."""
    if bench.options.profile is None:
        return
    for run in runs:
        if run.row["temp_bytes"] is not None and bench.budget.left():
            metagrad_trace.write(run.call, bench.options.profile / metagrad_trace.folder_of(run.case.label))


def _lacks_error(bench: Bench, case: Case) -> bool:
    return bench.is_compared(case) and bench.row(case)["rel_error"] is None


def _errors(bench: Bench, runs: Sequence[Run]) -> None:
    """Fills in the relative errors that are needed and missing, while time is left."""
    for run in runs:
        if not run.compared or run.row["rel_error"] is not None or not bench.budget.left():
            continue
        exact = bench.reference(run.case)
        run.row["rel_error"] = float(np.linalg.norm(np.asarray(run.call()) - exact) / np.linalg.norm(exact))
        bench.rows.keep(run.row)


def _peaks(bench: Bench, runs: Sequence[Run]) -> None:
    """Fills in the peak memory of cases on a CPU, each in a process of its own, while time is left."""
    wanted = bench.options.peaks
    if wanted == "none" or jax.default_backend() != "cpu":
        return
    for run in runs:
        is_peer = run.row["temp_bytes"] is None
        if run.row["peak_bytes"] is None and (is_peer or wanted == "all") and bench.budget.left():
            run.row["peak_bytes"] = metagrad_peak.measured(
                run.case, bench.preset.size, bench.preset.dtype, bench.preset.tasks
            )
            bench.rows.keep(run.row)
