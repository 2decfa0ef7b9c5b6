"""Benchmarks memory, time and accuracy of meta-gradients: every adjoint and policy, and peers, on one problem.

    python -m experiments.bench_metagrad --preset=cpu --out=DIR
    python -m experiments.bench_metagrad --layers=4 --width=128 --tokens=64 --minutes=5 --out=DIR \\
        --adjoints=weighted,first_order,truncated:1 --policies=plain,step,remat:block+example_chunk:2
    python -m experiments.bench_metagrad --hf_config=meta-llama/Llama-3.2-1B-Instruct --dtype=bfloat16 --out=DIR
    python -m experiments.bench_metagrad --compare=old/metagrad.json,new/metagrad.json

Writes metagrad.json (with every repetition), metagrad.csv, metagrad.md, metagrad.png and metagrad.svg to DIR. Rerun the
same command to resume: finished measurements are kept. Cases are compiled in parallel threads. Runs are interleaved
(every case once, then every case again), since machines are rarely idle, and medians are reported.
Presets: `cpu` (8 layers, about 20 minutes on 2 cores, 5 GiB), `gpu` and `tpu` (a 1B-parameter shape in bfloat16),
`tiny` (checks that everything runs; minutes, mostly compilation), `wall` (compiles a published out-of-memory case, all
124M parameters, T=16 and T=32 steps, and runs nothing). The other flags change the shapes and the cases of a preset.
PyTorch peers run on CPU presets if they are installed; their peak memory is measured in processes of their own.
"""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from experiments import settings
from experiments.benchmarks import metagrad as bench
from experiments.benchmarks import metagrad_compare
from experiments.benchmarks.metagrad_cases import PRESETS
from experiments.benchmarks.metagrad_own import FORMS, own_preset
from experiments.benchmarks.metagrad_report import as_csv, figure, machine, page, processor, table
from experiments.benchmarks.rows import Rows
from experiments.path_flags import DEFINE_path, DEFINE_path_list
from mass_jax import runtime
from mass_jax.errors import UserError

FLAGS = flags.FLAGS
OWN = (
    *("layers", "width", "tokens", "examples", "tasks", "lora_rank", "dtype", "hf_config"),
    *("inner_steps", "inner_optimizer", "adjoints", "policies", "errors", "peers"),
)
"""Flags that change the shapes and cases of a preset; the results name them."""


def run(
    preset: str,
    out: pathlib.Path,
    machine: str,
    stop: runtime.Stop | None = None,
    given: dict[str, Any] | None = None,
    options: bench.Options | None = None,
) -> None:
    """Measures a preset and writes the results after every measurement, the figure at the end.

    Args:
        preset: name in `PRESETS`, or "wall".
        out: directory of the results; finished measurements are not repeated.
        machine: name of the machine in the results.
        stop: polled after every measurement.
        given: flags that change the preset, by name.
        options: how to measure.

    Raises:
        ValueError: If a flag does not fit the preset, or `out` contains measurements of another machine, version or
            preset, or a damaged file.
    """
    given, options = given or {}, options or bench.Options()
    path = out / "metagrad.json"
    header: dict[str, Any] = {"machine": machine, "jax": jax.__version__, "preset": preset}
    if named := {name: value for name, value in given.items() if name in OWN}:
        header["flags"] = json.loads(json.dumps(named))  # lists, as in the file

    def save(rows: list[dict[str, Any]], not_measured: Sequence[str] = ()) -> None:
        found = header | {"processor": processor(), "rows": rows}
        runtime.write_atomically(path, json.dumps(found, indent=1) + "\n")
        runtime.write_atomically(out / "metagrad.csv", as_csv(rows))
        runtime.write_atomically(out / "metagrad.md", page(header, rows, not_measured))

    measured = own_preset(PRESETS[preset], given) if given else PRESETS.get(preset)
    rows = Rows(read_rows(path, header), save, stop or runtime.Stop())
    not_measured = bench.measure(measured, rows, options) if measured else bench.measure_wall(rows, options)
    finished = read_rows(path, header)
    save(finished, not_measured)
    if preset != "wall":
        figure(finished, out / "metagrad.png")
    print(table(finished))
    if not_measured:
        print("Not measured:", *not_measured, sep="\n- ")


def read_rows(path: pathlib.Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of an earlier run of the same measurement.

    Raises:
        ValueError: If the file belongs to another measurement or is damaged.
    """
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = found.pop("rows")
        found.pop("processor", None)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged; remove it, or give another --out") from None
    if found != header:
        raise ValueError(f"{path} was measured with {found}, not {header}; give another --out")
    return rows


def main(_: Sequence[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def command(stop: runtime.Stop) -> None:
    """Checks the flags and runs the benchmark, or compares two files of results."""
    if FLAGS.compare:
        if len(FLAGS.compare) != 2:
            raise UserError(f"--compare={','.join(FLAGS.compare)} must be two files: old.json,new.json")
        print(metagrad_compare.compare(*map(pathlib.Path, FLAGS.compare)), end="")
        return
    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory, like --out=runs/bench_metagrad")
    given = {name: FLAGS[name].value for name in (*OWN, "rounds") if FLAGS[name].present}
    if given and FLAGS.preset == "wall":
        raise UserError(f"--{next(iter(given))} does not apply to --preset=wall; use another preset")
    profile = FLAGS.profile and pathlib.Path(FLAGS.profile)
    options = bench.Options(FLAGS.minutes or math.inf, FLAGS.compile_threads, FLAGS.peaks, profile)
    try:
        run(FLAGS.preset, pathlib.Path(FLAGS.out), FLAGS.machine or machine(), stop, given, options)
    except ValueError as error:
        raise UserError(str(error)) from error


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    flags.DEFINE_enum("preset", "cpu", sorted([*PRESETS, "wall"]), "Named shapes and policies to measure.")
    DEFINE_path("out", None, "Directory for the results; rerun with the same directory to resume.")
    flags.DEFINE_string("machine", "", "Name of this machine in the results; empty uses its devices or cores.")
    _define_own()
    flags.DEFINE_float(
        "minutes",
        0.0,
        "Time budget; 0 means none. At most half of it is for compilation. The most wanted cases come first, and the "
        "report names those that were not reached.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "compile_threads",
        0,
        "Number of compilations at a time; 0 uses the number of cores. With 1, compile times do not affect each other.",
        lower_bound=0,
    )
    flags.DEFINE_enum(
        "peaks",
        "peers",
        ["none", "peers", "all"],
        "Cases whose peak resident memory is measured, each in a fresh process, on a CPU under Linux.",
    )
    DEFINE_path("profile", None, "Directory for a trace and a memory profile of one repetition of each case.")
    DEFINE_path_list("compare", "Two files, old.json,new.json, whose ratios are printed; nothing is measured.")


def _define_own() -> None:
    """Defines the flags of own shapes and cases; without a flag, the value of the preset is used."""
    for name, help_text in {
        "layers": "Number of transformer blocks.",
        "width": "Width of the model; heads keep their size, and the MLP its ratio to the width.",
        "tokens": "Number of tokens per example.",
        "examples": "Number of examples of a task.",
        "tasks": "Number of tasks, each with its own examples, that are differentiated at once.",
        "inner_steps": "Number of inner steps.",
        "rounds": "Number of timed runs per case.",
    }.items():
        flags.DEFINE_integer(name, None, f"{help_text} By default that of the preset.", lower_bound=1)
    flags.DEFINE_integer("lora_rank", None, "Rank of the LoRA adapter; 0 adapts all parameters.", lower_bound=0)
    flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Data type of the weights. By default the preset's.")
    DEFINE_path("hf_config", None, "Shape of a Hugging Face Llama: a directory, a config.json, or a published name.")
    flags.DEFINE_string(
        "inner_optimizer",
        None,
        "Inner optimizer, in the grammar of the training command, such as adam(0.002, eps_root=1e-8). Rates that are "
        "not given are 0.1 for sgd and 0.001 for others.",
    )
    flags.DEFINE_list(
        "adjoints", None, "Adjoints, most wanted first: weighted, mixed, reverse, first_order, truncated:2."
    )
    flags.DEFINE_list(
        "policies",
        None,
        f"Memory policies to combine with the adjoints, most wanted first; parts of a policy are joined by +, as in "
        f"remat:block+example_chunk:2. Parts: {', '.join(FORMS)}.",
    )
    flags.DEFINE_bool(
        "errors", None, "Compute relative errors against float64; by default as the preset, and not with --hf_config."
    )
    flags.DEFINE_bool(
        "peers",
        None,
        "Run the PyTorch peers; by default as the preset, and not with --adjoints, --policies or --hf_config.",
    )


if __name__ == "__main__":
    define()
    settings.run(main)
