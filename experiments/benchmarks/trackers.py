"""Measures what a tracker costs per training step.

    WANDB_MODE=offline python -m experiments.benchmarks.trackers --step_seconds=0.7

Opens each installed tracker, logs STEPS steps of 25 scalars, as training does, and prints the seconds and their share
of as many training steps of STEP_SECONDS. Nothing is kept.
"""

import importlib.util
import itertools
import pathlib
import tempfile
import time
from collections.abc import Sequence

from absl import flags

from experiments import settings
from mass_jax.runtime.trackers import NAMES, open_trackers

FLAGS = flags.FLAGS
SCALARS = 25


def define() -> None:
    """Defines the flags."""
    flags.DEFINE_integer("steps", 1000, "Number of steps to log.", lower_bound=1)
    flags.DEFINE_float("step_seconds", 0.7, "Time of a training step, for the share.", lower_bound=1e-3)


def measure(tracker: str, steps: int) -> list[float]:
    """Returns the seconds to open a tracker and log a first step, to log `steps` further ones, and to close it."""
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        run = root / "seed0" / "mass"
        run.mkdir(parents=True)
        row = {f"metric_{index}": index / 7 for index in range(SCALARS)}
        times = [time.perf_counter()]
        with open_trackers([tracker], run, root, {}) as trackers:
            trackers.log(0, row)
            times.append(time.perf_counter())
            for step in range(1, steps + 1):
                trackers.log(step, row)
            times.append(time.perf_counter())
        times.append(time.perf_counter())
    return [end - begin for begin, end in itertools.pairwise(times)]


def main(argv: Sequence[str]) -> None:
    """Prints one row per tracker, after the messages of the trackers."""
    del argv
    share_of = f"share of steps of {FLAGS.step_seconds:g} s"
    lines = [f"| tracker | opening | {FLAGS.steps} steps | closing | {share_of} |", "|---|---:|---:|---:|---:|"]
    for tracker in NAMES:
        if importlib.util.find_spec(tracker) is None:
            lines.append(f"| {tracker} | not installed | | | |")
            continue
        opening, logging, closing = measure(tracker, FLAGS.steps)
        share = logging / (FLAGS.steps * FLAGS.step_seconds)
        lines.append(f"| {tracker} | {opening:.2f} s | {logging:.2f} s | {closing:.2f} s | {share:.2%} |")
    print("\n".join(lines))


if __name__ == "__main__":
    define()
    settings.run(main, settings.parse)
