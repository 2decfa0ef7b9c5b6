"""Time and memory of meta-gradients on a user's own problem."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from mass_jax.errors import UserError
from mass_jax.metagrad import adjoints as methods
from mass_jax.metagrad import inner, losses, meta
from mass_jax.metagrad.benchmark_runs import Budget, Program, Progress, compile_all, interleaved
from mass_jax.metagrad.report import CompiledReport
from mass_jax.metagrad.trees import PyTree

_COMPILE_SHARE = 0.5  # of the time budget


@dataclasses.dataclass(frozen=True)
class BenchmarkRow:
    """Measurements of one adjoint.

    Attributes:
        name: name of the case.
        adjoint: the adjoint, as in Python.
        report: memory of the compiled program and the seconds of compilation; None if it was not compiled.
        times: wall-clock seconds of every timed run, without the warm-up.
        failure: why there are no measurements; empty if there are.
    """

    name: str
    adjoint: str
    report: CompiledReport | None
    times: tuple[float, ...]
    failure: str = ""

    @property
    def seconds(self) -> float | None:
        """Median of `times`; None without any."""
        return statistics.median(self.times) if self.times else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the measurements as plain numbers, lists and strings."""
        report = dataclasses.asdict(self.report) if self.report else {}
        names = ("temp_bytes", "argument_bytes", "output_bytes", "compile_seconds")
        measured = {name: report.get(name) for name in names}
        return {"case": self.name, "adjoint": self.adjoint, "seconds": self.seconds, "times": list(self.times)} | (
            measured | {"failure": self.failure}
        )


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """Result of `benchmark`; `print` shows it as a table in Markdown.

    Attributes:
        device: kind of the device.
        rows: measurements by adjoint, in the order in which the adjoints were given.
    """

    device: str
    rows: tuple[BenchmarkRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the measurements as JSON values; `experiments.bench_metagrad --compare` reads a file of them."""
        return {"machine": self.device, "jax": jax.__version__, "rows": [row.to_dict() for row in self.rows]}

    def __str__(self) -> str:
        lines = ["| case | temporaries, MiB | median, s | range, s | compile, s |", "|---|---:|---:|---:|---:|"]
        for row in self.rows:
            cells = [row.name, "", row.failure or "not reached", "", ""]
            if row.report:
                cells[1], cells[4] = f"{row.report.temp_bytes / 2**20:.2f}", f"{row.report.compile_seconds:.1f}"
            if row.times:
                cells[2:4] = f"{row.seconds:.3g}", f"{min(row.times):.3g} to {max(row.times):.3g}"
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def benchmark(
    inner_loss: Callable[..., jax.Array],
    outer_loss: Callable[..., Any],
    params: PyTree,
    meta_params: PyTree,
    batch: PyTree,
    outer_batch: PyTree,
    *,
    optimizer: inner.Optimizer,
    num_steps: int,
    adjoints: Mapping[str, methods.Adjoint] | Sequence[methods.Adjoint] | None = None,
    repeats: int = 5,
    minutes: float = math.inf,
    threads: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> BenchmarkResult:
    """Measures the time and memory of a meta-gradient with several adjoints, on your own losses and data.

    Programs compile in parallel threads. Then every program runs once as a warm-up and `repeats` times in turn with the
    others, so that a change of the machine's load meets all of them. An adjoint that does not apply to the problem gets
    a row with the reason.

    Args:
        inner_loss, outer_loss, params, meta_params, batch, outer_batch: as for `meta_gradient`. Arrays that the losses
            close over become constants of the programs; large ones, such as base weights, belong in `params` or a
            batch.
        optimizer: as for `meta_gradient`.
        num_steps: number of inner steps K, at least 1.
        adjoints: adjoints by name, or a sequence of them, most wanted first. By default those that apply: mixed mode,
            first order, and reverse mode with the steps recomputed.
        repeats: number of timed runs of each program, at least 1.
        minutes: time budget. At most half of it is for compilation, which is not interrupted once it has begun; the
            result says which adjoints were not reached.
        threads: number of compilations at a time; 0 uses the number of cores. With 1, the seconds of a compilation are
            not affected by others.
        progress: called with a line for each compiled program and each round, for example `print`.
        **settings: other arguments of `meta_gradient`.

    Returns:
        The `BenchmarkResult`: compiled memory, every repetition and their median.

    Raises:
        UserError: there are no adjoints, none of them applies, or `repeats` or `minutes` is not positive.

    >>> import jax.numpy as jnp, optax
    >>> from mass_jax import metagrad as mg
    >>> loss = mg.WeightedLoss(lambda params, batch: (params - batch) ** 2)
    >>> result = mg.benchmark(loss, lambda params, batch: (params - batch) ** 2, jnp.float32(0.0), jnp.ones(3),
    ...                       jnp.array([1.0, -1.0, 2.0]), jnp.float32(1.0), optimizer=optax.sgd(0.1), num_steps=2,
    ...                       adjoints={"exact": mg.WeightedMixedMode(), "biased": mg.FirstOrder()}, repeats=2)
    >>> [(row.name, row.report.argument_bytes, len(row.times)) for row in result.rows]
    [('exact', 32, 2), ('biased', 32, 2)]
    """
    _check(repeats, minutes)
    chosen = _named(adjoints, inner_loss)
    budget, say = Budget(60 * minutes), progress or (lambda line: None)
    args = (params, meta_params, batch, outer_batch)

    def lowering(adjoint: methods.Adjoint) -> Callable[[], jax.stages.Lowered]:
        def run(*args: Any) -> tuple[jax.Array, PyTree]:
            found = meta.meta_gradient(
                inner_loss, outer_loss, *args, optimizer=optimizer, num_steps=num_steps, adjoint=adjoint, **settings
            )
            return found.value, found.meta

        return lambda: jax.jit(run).lower(*args)

    lowerings = {name: lowering(adjoint) for name, adjoint in chosen.items()}
    compiled = compile_all(lowerings, threads=threads, budget=budget.part(_COMPILE_SHARE), progress=say)
    programs = {program.name: program for program in compiled}
    failures = [program.failure for program in programs.values()]
    if failures and all(failures):
        raise UserError(f"no adjoint applies to this problem; the first error: {failures[0]}")
    times = _times({name: programs[name] for name in chosen if name in programs}, args, repeats, budget, say)
    rows = []
    for name, adjoint in chosen.items():
        program = programs.get(name, Program(name, None, None))
        rows.append(BenchmarkRow(name, repr(adjoint), program.report, tuple(times.get(name, ())), program.failure))
    return BenchmarkResult(jax.devices()[0].device_kind, tuple(rows))


def _times(
    programs: Mapping[str, Program], args: tuple[Any, ...], repeats: int, budget: Budget, say: Progress
) -> dict[str, list[float]]:
    """Returns the seconds of every timed run, by name."""
    calls = {name: _bound(program.run, args) for name, program in programs.items() if program.run is not None}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number, seconds in enumerate(interleaved(calls, repeats, budget=budget), 1):
        for name, value in seconds.items():
            times[name].append(value)
        say(f"round {number} of {repeats}")
    return times


def _bound(run: Callable[..., Any], args: tuple[Any, ...]) -> Callable[[], Any]:
    """Returns a function without arguments that runs a program."""
    return lambda: run(*args)


def _check(repeats: int, minutes: float) -> None:
    """Raises a UserError unless both numbers are positive."""
    if repeats < 1:
        raise UserError(f"repeats={repeats} times nothing; give at least 1")
    if not minutes > 0:
        raise UserError(f"minutes={minutes} leaves no time; give a positive number, or leave it out")


def _named(
    adjoints: Mapping[str, methods.Adjoint] | Sequence[methods.Adjoint] | None, inner_loss: Callable[..., Any]
) -> dict[str, methods.Adjoint]:
    """Returns the adjoints by name."""
    if adjoints is None:
        mixed: list[methods.Adjoint] = [methods.MixedMode(), methods.FirstOrder(), methods.ReverseUnroll("step")]
        adjoints = [methods.WeightedMixedMode(), *mixed] if isinstance(inner_loss, losses.WeightedLoss) else mixed
    named = dict(adjoints) if isinstance(adjoints, Mapping) else {repr(adjoint): adjoint for adjoint in adjoints}
    if not named:
        raise UserError("adjoints is empty; give at least one, such as [MixedMode()]")
    for name, adjoint in named.items():
        if not isinstance(adjoint, methods.Adjoint):
            raise UserError(f"adjoints[{name!r}]={adjoint!r} is not an adjoint; pass an instance, such as MixedMode()")
    return named
