"""Measures an accelerator that is lent for minutes: ceilings, meta-gradients, an iteration and decoding.

    bash experiments/benchmarks/accelerator.sh h100 runs/accelerator 5
    python -m experiments.benchmarks.accelerator --preset=cpu --out=runs/accelerator

The script sets the environment and adds the peers in PyTorch. Weights are random, so nothing is downloaded. Programs
compile in threads, most wanted first, and each is measured once it is compiled; every row is appended to
OUT/accelerator.jsonl at once, so a run that is cut off leaves its finished rows. A case that fails is a row with its
error. OUT finally contains accelerator.json and accelerator.md.
"""

import dataclasses
import functools
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags, logging

from experiments import settings
from experiments.benchmarks import accelerator_attention, accelerator_cases, accelerator_iteration, accelerator_report
from experiments.benchmarks.accelerator_cases import INNER, Bilevel, Models
from experiments.benchmarks.accelerator_decode import Decoding, from_training_weights
from experiments.benchmarks.accelerator_run import Group, Rows, Runner, in_one_line
from experiments.benchmarks.accelerator_shapes import PRESETS, Preset
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.metagrad.benchmark_runs import Budget

FLAGS = flags.FLAGS
# XLA computes a product twice that it fuses with the write of its result into a stack of layers.
_UNFUSED: dict[str, Any] = {"xla_gpu_enable_dynamic_slice_fusion": False}
# Options of XLA under which cuBLAS's kernels of products are chosen by timing them.
_AUTOTUNED = _UNFUSED | {"xla_gpu_autotune_level": 4}


def groups(preset: Preset, rows: Rows) -> list[Group]:
    """Returns all groups, most wanted first.

    Args:
        preset: the shapes.
        rows: rows that are measured, which hold the bandwidth.
    """
    models = Models()
    large = Bilevel(preset, "8B", preset.large, preset.examples, models)
    half = dataclasses.replace(large, half_adapters=True)
    kernel = dataclasses.replace(half, attention="kernel")
    medium = Bilevel(preset, "1B", preset.medium, preset.examples, models)
    few = dataclasses.replace(medium, examples=preset.few_examples)

    def bandwidth() -> float | None:
        found = [row["gigabytes_per_second"] for row in rows.rows if "gigabytes_per_second" in row]
        return 1e9 * found[0] if found else None

    def decoding(model: str, tasks: int, kind: Any = "own", note: str = "") -> Decoding:
        config = preset.large if model == "8B" else preset.medium
        return Decoding(preset, model, config, tasks, kind, models, bandwidth, note)

    first, *others = preset.tasks
    exact, biased, reverse = "WeightedMixedMode", "FirstOrder", "ReverseUnroll(step)"
    long = functools.partial(accelerator_cases.long, preset, arithmetic="bfloat16", chunk=preset.long_chunk)
    blocks = preset.long.layers
    iteration, attention = _iteration(preset, rows), accelerator_attention.groups(preset)
    pair = {"first order": biased, "exact": exact}
    saved = f"{INNER}, products saved, no chunks"
    result = [
        half.group({saved: half.inner("dots", chunks=False)}, options=_UNFUSED),
        decoding("8B", first).group(),
        long(adjoint="WeightedMixedMode(replay)", remat="dots"),
        half.group(
            {f"{name}, no chunks": half.case(adjoint, "block", chunks=False) for name, adjoint in pair.items()},
            options=_UNFUSED,
        ),
        kernel.group({saved: kernel.inner("dots", chunks=False)}, options=_UNFUSED),
        *attention[:1],
        long(adjoint="WeightedMixedMode(replay)", remat="none"),
        *iteration[:1],
        long(adjoint="WeightedMixedMode(replay)", remat="dots", chunk=None),
        long(adjoint="WeightedMixedMode(replay)", remat="dots", chunk=None, attention="kernel"),
        long(adjoint="WeightedMixedMode(replay)", remat="dots", chunk=None, attention="kernel", unroll=blocks),
        kernel.group(
            {f"{name}, no chunks": kernel.case(adjoint, "block", chunks=False) for name, adjoint in pair.items()},
            options=_UNFUSED,
        ),
        *attention[1:],
        long(adjoint="WeightedMixedMode(replay)", remat="dots", attention="kernel"),
        long(adjoint="WeightedMixedMode(recursive)", remat="block"),
        large.group({INNER: large.inner("block")}),
        half.group({name: half.case(adjoint) for name, adjoint in pair.items()}),
        large.group({name: large.case(adjoint) for name, adjoint in pair.items()}),
        *iteration[1:2],
        decoding("8B", first, "none").group(),
        medium.group({INNER: medium.inner("block")}),
        medium.group({name: medium.case(adjoint) for name, adjoint in pair.items()}),
        *(decoding("8B", tasks).group() for tasks in others),
        decoding("8B", first, "shared").group(),
        half.group({f"{INNER}, no chunks": half.inner("block", chunks=False)}, options=_UNFUSED),
        few.group({name: few.case(adjoint) for name, adjoint in pair.items()}),
        long(adjoint="WeightedMixedMode(replay)", remat="dots", arithmetic="bfloat16 products"),
        decoding("1B", first).group(),
        medium.group({"reverse, all recomputed": medium.case(reverse)}),
        few.group({"reverse, all recomputed": few.case(reverse)}),
        from_training_weights(decoding("8B", first)),
        *iteration[2:],
    ]
    if jax.default_backend() == "gpu":
        tuned: dict[str, Any] = {"alone": True, "options": _AUTOTUNED}
        result.append(half.group({f"{saved}, autotuned": half.inner("dots", chunks=False)}, **tuned))
        result.append(decoding("8B", first, note=", autotuned").group(**tuned))
    return result


def _iteration(preset: Preset, rows: Rows) -> list[Group]:
    """Returns the groups of the iteration; a failure to build them is a row."""
    try:
        return [*accelerator_iteration.groups(preset), accelerator_iteration.paper_step(preset)]
    except Exception as error:  # the other cases are worth measuring without it
        rows.write("SmolLM2: meta-step", {"error": in_one_line(error)})
        return []


def measure(preset: Preset, out: pathlib.Path, budget: Budget, threads: int, only: Sequence[str] = ()) -> bool:
    """Measures the cases and writes the results; returns whether no compilation is still running.

    Args:
        preset: the shapes.
        out: directory of the results.
        budget: no case begins after its end.
        threads: number of compilations at a time.
        only: parts of labels of the cases to measure; empty means all.
    """
    header = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    rows = Rows(out / accelerator_report.LINES, header)

    def chosen(group: Group) -> bool:
        return not only or any(part in label for part in only for label in group.traces)

    # The ceilings come first, with nothing else running.
    done = Runner(rows, budget, 2).run([group for group in [accelerator_cases.ceilings(preset)] if chosen(group)])
    done = Runner(rows, budget, threads).run([group for group in groups(preset, rows) if chosen(group)]) and done
    print(accelerator_report.write(out), flush=True)
    return done


def command(_: runtime.Stop) -> None:
    """Measures the preset of the flags."""
    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory, like --out=runs/accelerator")
    done = measure(
        PRESETS[FLAGS.preset], pathlib.Path(FLAGS.out), Budget(60 * FLAGS.minutes), FLAGS.threads, FLAGS.only
    )
    if not done:
        logging.info("ending with compilations unfinished")
        sys.stdout.flush()
        os._exit(0)  # an ordinary exit would wait for them


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    flags.DEFINE_enum("preset", "cpu", sorted(PRESETS), "Shapes of the cases.")
    flags.DEFINE_float("minutes", 5.0, "No case begins after this many minutes.", lower_bound=0.0)
    flags.DEFINE_integer("threads", 4, "Number of programs to compile at a time.", lower_bound=1)
    flags.DEFINE_multi_string("only", [], "Part of the names of the cases to measure; can be repeated.")
    DEFINE_path("out", None, "Directory for the results; rows are added to those that are there.")
    settings.define_compilation_cache()


if __name__ == "__main__":
    define()
    settings.run(main)
