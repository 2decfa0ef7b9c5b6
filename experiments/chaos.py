"""Kills a training run at random times in every phase and looks whether it still ends with the same bits.

    python -m experiments.chaos --out=runs/chaos --kills=30

Trains a small run undisturbed, then runs that are stopped (SIGTERM) or killed (SIGKILL) and resumed, until so many
kills are spent: up to three a run, each in another phase, at a random time after that phase began. Each disturbed run
must end with the checkpoint, the metrics and the records of the undisturbed one, bit for bit (times aside).
OUT/chaos.json says which phase each kill met; the status is 1 if anything differs. The same command goes on after the
last run that was finished.
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
    """One interruption: which run, which signal, how long after its start, in which phase, how the process ended."""

    run: int
    signal: str
    seconds: float
    phase: str
    status: int


def main(_: list[str]) -> None:
    settings.guarded(torment)


def torment(stop: runtime.Stop) -> None:
    """The whole command."""
    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory, like --out=runs/chaos")
    out = pathlib.Path(FLAGS.out).absolute()
    if not (out / "chaos.json").exists():
        if out.exists() and any(out.iterdir()):
            raise UserError(f"--out={out} exists and holds no chaos.json; give a new directory")
        report(out, [], 0, 0)
    if not (out / "undisturbed" / "report" / "table1.md").exists():
        train(out / "undisturbed", None, random.Random())  # resumes what an earlier command left of it
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
    """One run, interrupted in up to three phases while it goes on, and then left in peace."""
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
    """The command as users run it, with a signal in some phase; a kill without a phase is one that did not happen."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled")}
    cache["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [sys.executable, "-m", "experiments.train", *SMALL, f"--workdir={workdir}"]
    began, name, phase = time.monotonic(), "", ""
    stale = unfinished(workdir)  # of an earlier kill; they say nothing of this process
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
    """Waits until the run is in a phase; false if it ended before."""
    while process.poll() is None:
        if phase_of(workdir, stale) == phase:
            return True
        time.sleep(0.005)
    return False


def unfinished(workdir: pathlib.Path) -> frozenset[pathlib.Path]:
    """Checkpoints that are being written, or that a kill left so."""
    return frozenset((workdir / "seed0" / "mass").glob("checkpoints/*tmp*"))


def phase_of(workdir: pathlib.Path, stale: frozenset[pathlib.Path] = frozenset()) -> str:
    """What a run is doing, as its files tell; `stale` ones aside."""
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
    """Hashes of what a run ends with: every array of its last checkpoint, its metrics and records without times."""
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
    """Of all arrays in the newest checkpoint of a directory."""
    import jax
    import numpy as np
    from orbax.checkpoint import v1 as ocp

    newest = max((child for child in path.iterdir() if child.name.isdecimal()), key=lambda child: int(child.name))
    digest = hashlib.sha256(newest.name.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that shardings come from the file, which is right: the topology is the same
        arrays = ocp.load(newest)
    for leaf in jax.tree.leaves(arrays):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def report(out: pathlib.Path, kills: list[Kill], runs: int, same: int) -> None:
    """Writes what is known so far."""
    result: dict[str, Any] = {"kills": len(kills), "runs": runs, "bit_identical": same}
    result |= {"by_phase": dict(collections.Counter(kill.phase for kill in kills))}
    result |= {"each": [dataclasses.asdict(kill) for kill in kills]}
    runtime.write_atomically(out / "chaos.json", json.dumps(result, indent=1) + "\n")


def read(out: pathlib.Path) -> tuple[list[Kill], int, int]:
    """Kills, finished runs, and how many of them ended with the same bits."""
    found = json.loads((out / "chaos.json").read_text(encoding="utf-8"))
    return [Kill(**each) for each in found["each"]], found["runs"], found["bit_identical"]


if __name__ == "__main__":
    DEFINE_path("out", None, "Directory for the runs and the result.")
    flags.DEFINE_integer("kills", 30, "Kills in all.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the times and signals.")
    settings.run(main)
