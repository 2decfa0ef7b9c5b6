"""Tests for experiments.stress.chaos: its comparison of runs. The command itself takes minutes and is run by hand."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.stress.chaos import Kill, fingerprint, phase_of, read, report, unfinished
from mass_jax.runtime import Checkpoints


@pytest.fixture
def run(tmp_path):
    """Factory of the files of a run with two finished and saved warm-up steps."""

    def make(name, value=1.0, seconds=3.0, reward=0.5):
        workdir = tmp_path / name
        with Checkpoints(workdir / "seed0" / "mass" / "checkpoints") as checkpoints:
            checkpoints.save(2, {"w": jnp.full(3, value)})
        rows = [{"step": i, "reward": reward, "step_time": seconds} for i in range(2)]
        (workdir / "seed0" / "mass" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return workdir

    return make


def test_fingerprint_ignores_times(run):
    assert fingerprint(run("a")) == fingerprint(run("b", seconds=9.0))


def test_fingerprint_detects_one_bit(run):
    reference = fingerprint(run("a"))
    assert fingerprint(run("b", value=float(np.nextafter(np.float32(1), np.float32(2))))) != reference
    assert fingerprint(run("c", reward=0.5000001)) != reference


def test_phase_of_reads_files(run, tmp_path):
    assert phase_of(tmp_path / "nothing") == "start"
    workdir = run("a")
    assert phase_of(workdir) == "training"
    (workdir / "seed0" / "mass" / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
    assert phase_of(workdir) == "saving"
    assert phase_of(workdir, unfinished(workdir)) == "training"


def test_read_inverts_report(tmp_path):
    kills = [Kill(1, "SIGKILL", 7.59, "training", -9), Kill(1, "SIGTERM", 9.0, "saving", 143)]
    report(tmp_path, kills, 1, 1)
    assert read(tmp_path) == (kills, 1, 1)
    assert json.loads((tmp_path / "chaos.json").read_text())["by_phase"] == {"training": 1, "saving": 1}
