"""Benchmarks sampling, the forward pass and the LoRA gradient against transformers and peft on PyTorch.

    python -m experiments.tools.fetch_smollm2 --out=models/smollm2
    python -m experiments.bench_sampling --preset=cpu --model=models/smollm2 --out=runs/bench_sampling

Takes about 5 minutes on 2 cores. Writes sampling.json, sampling.md, sampling.png and sampling.svg to OUT. Runs of both
sides are interleaved, so that other load on the machine affects both; the ratio of medians and its range are reported,
and the rate of decoding as a share of its limit by the memory bandwidth.
Rerun the same command to resume: finished cases are kept. Both sides use float32, the same prompts and 64 new tokens
without early stopping. Needs `pip install mass_jax[test]`.
"""

import os
import pathlib

from absl import flags

from experiments import settings
from experiments.benchmarks.sampling import run
from experiments.benchmarks.sampling_report import write
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.errors import UserError

_PRESETS = {"cpu": {"repeats": 3, "new": 64, "samples": 12, "rank": 8}}


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def command(stop: runtime.Stop) -> None:
    """Measures, then writes the results."""
    if flags.FLAGS.out is None:
        raise UserError("--out is missing; give a directory, like --out=runs/bench_sampling")
    out = pathlib.Path(flags.FLAGS.out)
    machine = flags.FLAGS.machine or f"{os.cpu_count()} CPU cores"
    try:
        result = run(
            pathlib.Path(flags.FLAGS.model),
            out,
            machine,
            bandwidth=flags.FLAGS.bandwidth * 1e9,
            stop=stop,
            **_PRESETS[flags.FLAGS.preset],
        )
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    write(result, out)


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    flags.DEFINE_enum("preset", "cpu", sorted(_PRESETS), "Named sizes of the benchmark.")
    DEFINE_path("model", "models/smollm2", "A Hugging Face Llama directory to benchmark.")
    DEFINE_path("out", None, "Directory for the results; rerun with the same directory to resume.")
    flags.DEFINE_float(
        "bandwidth", 0.0, "Memory bandwidth of the machine in GB/s; 0 measures the fastest read.", lower_bound=0
    )
    flags.DEFINE_string("machine", "", "Name of this machine in the results; empty uses its number of cores.")


if __name__ == "__main__":
    define()
    settings.run(main)
