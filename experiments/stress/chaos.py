"""Chaos test: kills a training run at random times in every phase and checks that it still ends with the same bits.

    python -m experiments.stress.chaos --out=runs/chaos --kills=30

First trains a small run undisturbed. Then repeats it while stopping (SIGTERM) or killing (SIGKILL) and resuming it,
until --kills interruptions are done: up to three per run, each in another phase, at a random time after the phase
began. Every interrupted run must end with the checkpoint, metrics and records of the undisturbed one, bit for bit
(except for times). OUT/chaos.json lists the phase of each kill; the exit status is 1 if anything differs. Rerun the
same command to resume after the last finished run.
"""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from typing import Any

from absl import flags, logging

from experiments import settings
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.runtime import jsonl

FLAGS = flags.FLAGS
STEPS, WARMUP = 6, 2
SMALL = (
    f"--preset=tiny --steps={STEPS} --warmup_steps={WARMUP} --tasks_per_step=2 --num_examples=2 --num_test_examples=2 "
    "--eval_batch=4 --num_attempts=2 --num_eval_problems=8 --checkpoint_every=2 --outer=verifier "
    "--methods=base,tt_ss,mass"
).split()
PHASES = ("evaluation before training", "warm-up", "training", "saving", "evaluation")
LONGEST_DELAY = 2.0  # seconds into a phase; about a step with its sampling, or two batches of evaluation
TIMES = ("seconds", "step_time", "seconds_per_question")


@dataclasses.dataclass(frozen=True)
class Kill:
    """One interruption.

    Attributes:
        run: number of the run.
        signal: name of the signal.
        seconds: time from the start of the process to the signal.
        phase: phase that was interrupted.
        status: exit status of the process.
    """

    run: int
    signal: str
    seconds: float
    phase: str
    status: int


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(torment)


def torment(stop: runtime.Stop) -> None:
    """Interrupts runs until --kills interruptions are done; exits with status 1 if a result differs."""
    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory, like --out=runs/chaos")
    out = pathlib.Path(FLAGS.out).absolute()
    if not (out / "chaos.json").exists():
        if out.exists() and any(out.iterdir()):
            raise UserError(f"--out={out} is not empty and has no chaos.json; give a new directory")
        report(out, [], 0, 0)
    if not (out / "undisturbed" / "report" / "table1.md").exists():
        train(out / "undisturbed", None, random.Random())  # resumes if an earlier command was interrupted
    kills, runs, same = read(out)
    reference = fingerprint(out / "undisturbed")
    while len(kills) < FLAGS.kills:
        stop.poll()
        runs += 1
        workdir = out / f"run{runs}"
        shutil.rmtree(workdir, ignore_errors=True)
        kills += disturbed(workdir, runs, FLAGS.kills - len(kills), random.Random(f"{FLAGS.seed} {runs}"))
        same += fingerprint(workdir) == reference
        report(out, kills, runs, same)
        shutil.rmtree(workdir)
    print((out / "chaos.json").read_text(encoding="utf-8"))
    if same < runs:
        raise SystemExit(1)


def disturbed(workdir: pathlib.Path, run: int, most: int, draw: random.Random) -> list[Kill]:
    """Interrupts a run in up to three phases, then lets it finish; returns the interruptions."""
    kills: list[Kill] = []
    for place in sorted(draw.sample(range(len(PHASES)), min(3, most))):
        number = draw.choice([signal.SIGTERM, signal.SIGKILL])
        found = train(workdir, (PHASES[place], number), draw)
        if found.phase:
            kills.append(dataclasses.replace(found, run=run))
            logging.info("%s", kills[-1])
    train(workdir, None, draw)
    return kills


def train(workdir: pathlib.Path, interruption: tuple[str, signal.Signals] | None, draw: random.Random) -> Kill:
    """Runs training as users do, with a signal in some phase; the result has no phase if no signal was sent."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled")}
    cache["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [sys.executable, "-m", "experiments.train", *SMALL, f"--workdir={workdir}"]
    began, name, phase = time.monotonic(), "", ""
    stale = unfinished(workdir)  # left by an earlier kill, not by this process
    with subprocess.Popen(
        command, env=os.environ | cache, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        if interruption is not None and wait_for(workdir, interruption[0], process, stale):
            time.sleep(draw.uniform(0, LONGEST_DELAY))
            phase, name = phase_of(workdir, stale), interruption[1].name
            process.send_signal(interruption[1])
        seconds = time.monotonic() - began
        errors = process.communicate()[1]
    expected = (0, -interruption[1], 128 + interruption[1]) if phase and interruption is not None else (0,)
    if process.returncode not in expected:
        raise UserError(f"the run in {workdir} failed: {errors.decode().strip().splitlines()[-1]}")
    return Kill(0, name, round(seconds, 2), phase if process.returncode else "", process.returncode)


def wait_for(workdir: pathlib.Path, phase: str, process: subprocess.Popen, stale: frozenset[pathlib.Path]) -> bool:
    """Waits until the run is in a phase; returns False if it ends before."""
    while process.poll() is None:
        if phase_of(workdir, stale) == phase:
            return True
        time.sleep(0.005)
    return False


def unfinished(workdir: pathlib.Path) -> frozenset[pathlib.Path]:
    """Returns checkpoints that are being written, or were when the run was killed."""
    return frozenset((workdir / "seed0" / "mass").glob("checkpoints/*tmp*"))


def phase_of(workdir: pathlib.Path, stale: frozenset[pathlib.Path] = frozenset()) -> str:
    """Determines the phase of a run from its files, ignoring `stale` ones."""
    run = workdir / "seed0" / "mass"
    if unfinished(workdir) - stale:
        return "saving"
    metrics = run / "metrics.jsonl"
    if not metrics.exists():
        return "evaluation before training" if (workdir / "seed0").exists() else "start"
    done = len(jsonl.read_log(metrics).rows)
    if done >= STEPS:
        return "evaluation"
    return "warm-up" if done < WARMUP else "training"


def fingerprint(workdir: pathlib.Path) -> dict[str, str]:
    """Hashes the results of a run: the arrays of its last checkpoint, and its metrics and records without times."""
    found = {}
    for path in sorted(workdir.rglob("*.jsonl")):
        log = jsonl.read_log(path)
        if log.damaged or log.torn:
            raise UserError(f"{path}:{min([*log.damaged, *log.torn]).line} is damaged, though the run has finished")
        rows = [{name: value for name, value in row.items() if name not in TIMES} for _, row in log.rows]
        found[str(path.relative_to(workdir))] = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    for path in sorted(workdir.rglob("checkpoints")):
        found[str(path.relative_to(workdir))] = _hash_of_arrays(path)
    return found


def _hash_of_arrays(path: pathlib.Path) -> str:
    """Hashes all arrays in the newest checkpoint of a directory."""
    import jax
    import numpy as np
    from orbax.checkpoint import v1 as ocp

    newest = max((child for child in path.iterdir() if child.name.isdecimal()), key=lambda child: int(child.name))
    digest = hashlib.sha256(newest.name.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about shardings from the file, which are right on the same devices
        arrays = ocp.load(newest)
    for leaf in jax.tree.leaves(arrays):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def report(out: pathlib.Path, kills: list[Kill], runs: int, same: int) -> None:
    """Writes the results so far to OUT/chaos.json."""
    result: dict[str, Any] = {"kills": len(kills), "runs": runs, "bit_identical": same}
    result |= {"by_phase": dict(collections.Counter(kill.phase for kill in kills))}
    result |= {"each": [dataclasses.asdict(kill) for kill in kills]}
    runtime.write_atomically(out / "chaos.json", json.dumps(result, indent=1) + "\n")


def read(out: pathlib.Path) -> tuple[list[Kill], int, int]:
    """Reads OUT/chaos.json: kills, number of finished runs, and number of runs with identical results."""
    found = json.loads((out / "chaos.json").read_text(encoding="utf-8"))
    return [Kill(**each) for each in found["each"]], found["runs"], found["bit_identical"]


if __name__ == "__main__":
    DEFINE_path("out", None, "Directory for the runs and the results; rerun with the same directory to resume.")
    flags.DEFINE_integer("kills", 30, "Total number of interruptions.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Random seed of times and signals.")
    settings.run(main)
