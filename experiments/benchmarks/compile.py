"""Measures how long the programs of a run take to trace, lower and compile.

    python -m experiments.benchmarks.compile --preset=tiny --out=runs/compile
    python -m experiments.benchmarks.compile --meta_gradients=cpu --out=runs/compile_metagrad
    python -m experiments.benchmarks.compile --compare=runs/before/compile.json,runs/after/compile.json

Compiles every program of training and evaluation, one at a time and without a compilation cache, from shapes alone: no
weights are read. --topology=v5e:4x4 compiles for a TPU that is not attached (`pip install "mass_jax[plan]"`), and
--topology=h100:1 for a GPU (`pip install "mass_jax[plan-cuda]"`). --meta_gradients compiles the timed cases of
`experiments.bench_metagrad` instead. Writes compile.json and compile.md to OUT. CPU seconds are those of all threads;
on a busy machine they vary less than the time by the clock.
"""

import functools
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from absl import flags, logging

from experiments import settings
from experiments.benchmarks import metagrad_cases, metagrad_programs
from experiments.path_flags import DEFINE_path, DEFINE_path_list
from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.planning import chips, shapes
from mass_jax.training import architecture, programs
from third_party.peers import problem

FLAGS = flags.FLAGS
PARTS = ("trace", "lower", "compile")
Row = dict[str, Any]
Trace = Callable[[], Any]
"""Traces a program, like `jax.jit(function).trace` with its arguments."""


def measure(name: str, trace: Trace) -> Row:
    """Traces, lowers and compiles a program, and returns the seconds by the clock and the CPU seconds of each part.

    >>> row = measure("square", functools.partial(jax.jit(lambda x: x * x).trace, 2.0))
    >>> row["program"], row["compile"] > 0, row["lines"] > 0
    ('square', True, True)
    """
    row: Row = {"program": name}
    steps = {
        "trace": lambda _: trace(),
        "lower": lambda traced: traced.lower(),
        "compile": lambda lowered: lowered.compile(),
    }
    result: Any = None
    for part, step in steps.items():
        wall, cpu = time.perf_counter(), time.process_time()
        result = step(result)
        row[part] = round(time.perf_counter() - wall, 3)
        row[f"{part}_cpu"] = round(time.process_time() - cpu, 3)
        if part == "lower":
            row["lines"] = result.as_text().count("\n")
    logging.info("%s: %s", name, ", ".join(f"{part} {row[f'{part}_cpu']:.1f} s" for part in PARTS))
    return row


def of_run(config: Config) -> Iterator[tuple[str, Trace]]:
    """Yields the programs of training and evaluation of a run."""
    mesh = runtime.make_mesh(FLAGS.mesh, chips.devices_of(FLAGS.topology, FLAGS.num_slices))
    loop, scorer = architecture.models(config, architecture.execution(config, shapes.shape_of(config.model)))
    of = programs.Shapes(config, loop, scorer, runtime.Feed(mesh))
    with runtime.use_mesh(mesh):
        for program in programs.run_programs(of, config.chosen_methods):
            yield program.name, program.trace


def of_meta_gradients(name: str) -> Iterator[tuple[str, Trace]]:
    """Yields the timed cases of a preset of `experiments.bench_metagrad`."""
    preset = metagrad_cases.PRESETS[name]
    data = jax.eval_shape(lambda key: problem.draw(key, preset.size, preset.dtype), jax.random.key(0))
    for case in metagrad_cases.cases(preset):
        if case.timed:
            gradient: Any = jax.jit(metagrad_programs.function_of(case, preset.size))
            yield f"{case.adjoint} ({case.policy})", functools.partial(gradient.trace, data)


def cpu_seconds(row: Row) -> float:
    """Returns the CPU seconds that a program takes to trace, lower and compile."""
    return sum(row[f"{part}_cpu"] for part in PARTS)


def table(rows: Sequence[Row]) -> str:
    """Formats measurements as a Markdown table."""
    lines = [
        "| program | trace, CPU s | lower, CPU s | compile, CPU s | total, CPU s | total, s | lines of StableHLO |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    names = ("lines", *PARTS, *(f"{part}_cpu" for part in PARTS))
    total = {"program": "all"} | {name: sum(row[name] for row in rows) for name in names}
    for row in [*rows, total]:
        seconds = [*(row[f"{part}_cpu"] for part in PARTS), cpu_seconds(row), sum(row[part] for part in PARTS)]
        lines.append(f"| {row['program']} | {' | '.join(f'{each:.2f}' for each in seconds)} | {row['lines']} |")
    return "\n".join(lines) + "\n"


def comparison(before: Sequence[Row], after: Sequence[Row]) -> str:
    """Formats the CPU seconds of the programs that two measurements share, and their ratios, as a Markdown table.

    Raises:
        ValueError: they share no program.

    >>> row = {"program": "a", "trace_cpu": 1.0, "lower_cpu": 1.0, "compile_cpu": 2.0}
    >>> print(comparison([row], [row | {"compile_cpu": 0.0}]))
    | program | before, CPU s | after, CPU s | ratio |
    |---|---:|---:|---:|
    | a | 4.00 | 2.00 | 0.50 |
    | all | 4.00 | 2.00 | 0.50 |
    """
    new = {row["program"]: cpu_seconds(row) for row in after}
    pairs = [(row["program"], cpu_seconds(row), new[row["program"]]) for row in before if row["program"] in new]
    if not pairs:
        raise ValueError("the files of --compare share no program; give two measurements of the same preset")
    pairs.append(("all", sum(old for _, old, _ in pairs), sum(now for _, _, now in pairs)))
    lines = ["| program | before, CPU s | after, CPU s | ratio |", "|---|---:|---:|---:|"]
    return "\n".join([*lines, *(f"| {name} | {old:.2f} | {now:.2f} | {now / old:.2f} |" for name, old, now in pairs)])


def read(path: pathlib.Path) -> list[Row]:
    """Reads the rows of a compile.json.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        for row in rows:
            _ = row["program"], cpu_seconds(row)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not a compile.json of this command; measure again") from None
    return rows


def command(stop: runtime.Stop) -> None:
    """Checks the flags and measures, or compares two measurements."""
    try:
        if FLAGS.compare:
            if len(FLAGS.compare) != 2:
                raise ValueError(f"--compare={','.join(FLAGS.compare)} needs two files, like before.json,after.json")
            print(comparison(*(read(pathlib.Path(path)) for path in FLAGS.compare)))
            return
        config = settings.read()
        if settings.printed(config):
            return
        if FLAGS.out is None:
            raise ValueError("--out is missing; give a directory, like --out=runs/compile")
        jax.config.update("jax_enable_compilation_cache", False)
        if FLAGS.topology != "local":
            jax.config.update("jax_platforms", "cpu")  # otherwise JAX would look for a TPU, since libtpu is installed
        rows = []
        for name, trace in of_meta_gradients(FLAGS.meta_gradients) if FLAGS.meta_gradients else of_run(config):
            stop.poll()
            if not FLAGS.programs or any(part in name for part in FLAGS.programs):
                rows.append(measure(name, trace))
        if not rows:
            raise ValueError(f"--programs={','.join(FLAGS.programs)} is part of no name; give others, or none for all")
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(str(error)) from error
    device = jax.devices()[0].device_kind if FLAGS.topology == "local" else FLAGS.topology
    header = {"device": device, "jax": jax.__version__, "preset": FLAGS.meta_gradients or FLAGS.preset}
    text = ", ".join(f"{name} `{value}`" for name, value in header.items()) + "\n\n" + table(rows)
    out = pathlib.Path(FLAGS.out)
    runtime.write_atomically(out / "compile.json", json.dumps(header | {"rows": rows}, indent=1) + "\n")
    runtime.write_atomically(out / "compile.md", text)
    print(text)


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    settings.define()
    settings.define_topology()
    settings.define_compile_effort()
    flags.adopt_module_key_flags(settings)  # list them in --help
    flags.DEFINE_enum(
        "meta_gradients", None, sorted(metagrad_cases.PRESETS), "Preset of bench_metagrad to compile in place of a run."
    )
    flags.DEFINE_list("programs", [], "Parts of the names of the programs to compile, separated by commas; empty: all.")
    DEFINE_path_list("compare", "Two files compile.json, before and after; compiles nothing.")
    DEFINE_path("out", None, "Directory of the results.")


if __name__ == "__main__":
    define()
    settings.run(main)
