"""Tests for experiments.bench_metagrad and its peers."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import bench_metagrad
from experiments.benchmarks import metagrad as bench
from experiments.benchmarks.rows import row_key
from third_party.peers import plain_jax, problem

SIZE = problem.Size(2, 16, 24, 4, 2, 32, 2, 4, 8, 2)


def test_cases_have_distinct_keys():
    for preset in bench.PRESETS.values():
        keys = [
            row_key(bench.row_of(case, dataclasses.replace(preset.size, examples=case.examples or 3), "float32"))
            for case in bench.cases(preset)
        ]
        assert len(set(keys)) == len(keys)


def test_torch_peers_agree_with_plain_jax():
    torch_peers = pytest.importorskip("third_party.peers.torch_peers")
    data = problem.draw(jax.random.key(0), SIZE)
    data.params["layers"]["mlp"]["up_proj"]["b"] += 0.1
    reference = jax.jit(lambda data: plain_jax.weight_gradient(SIZE, data, optax.sgd(0.5), 2))(data)
    found = torch_peers.double_backward(SIZE, data, 0.5, 2)
    assert np.linalg.norm(found - reference) < 1e-4 * np.linalg.norm(reference)


def test_run_writes_results_and_resumes(tmp_path, monkeypatch, capsys):
    preset = bench.Preset(SIZE, rounds=1, loss_chunk=4, chunk=2, wide=8)
    monkeypatch.setitem(bench.PRESETS, "tiny", preset)
    monkeypatch.setattr(bench, "cases", lambda preset: [bench.Case("WeightedMixedMode"), bench.Case("FirstOrder")])
    bench_metagrad.run("tiny", tmp_path, "a test")
    first = json.loads((tmp_path / "metagrad.json").read_text(encoding="utf-8"))
    bench_metagrad.run("tiny", tmp_path, "a test")
    assert json.loads((tmp_path / "metagrad.json").read_text(encoding="utf-8")) == first
    with pytest.raises(ValueError, match="give another --out"):
        bench_metagrad.run("tiny", tmp_path, "another machine")
    exact, biased = first["rows"]
    assert exact["seconds"] > 0
    assert exact["temp_bytes"] > 0
    assert exact["rel_error"] < 1e-4 < biased["rel_error"]
    assert (tmp_path / "metagrad.png").stat().st_size > 1000
    assert "| WeightedMixedMode | plain | sgd | 2 | 4 |" in (tmp_path / "metagrad.md").read_text(encoding="utf-8")
    assert "a test" in (tmp_path / "metagrad.md").read_text(encoding="utf-8")
    assert "FirstOrder" in capsys.readouterr().out


SMALL_COMMAND = """
from absl import flags
from experiments import bench_metagrad, settings
from experiments.benchmarks import metagrad as bench
from third_party.peers import problem

bench.PRESETS["tiny"] = bench.Preset(problem.Size(2, 16, 24, 4, 2, 32, 2, 4, 8, 2), rounds=3, loss_chunk=4, chunk=2)
names = ["ReverseUnroll", "MixedMode", "FirstOrder"]
bench.cases = lambda preset: [*map(bench.Case, names), bench.Case("WeightedMixedMode", "adamw", timed=False)]
bench_metagrad.define()
settings.run(bench_metagrad.main)
"""
NUMBERS = ("temp_bytes", "compile_seconds", "seconds", "rel_error")


def rows_in(out):
    path = out / "metagrad.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def run_small(out, number=None, reached=None):
    """Runs the command, sends a signal once `reached` holds for the saved rows, and returns status and stderr."""
    command = [sys.executable, "-c", SMALL_COMMAND, "--preset=tiny", f"--out={out}", "--machine=a test"]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 200
        while number is not None and not reached(rows_in(out)):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.002)
        if number is not None:
            process.send_signal(number)
        errors = process.communicate(timeout=200)[1].decode()
    return process.returncode, errors


def test_interrupted_run_keeps_finished_measurements(tmp_path):
    """Kills the run while it compiles, stops it during timing, and resumes it."""
    status, _ = run_small(tmp_path, signal.SIGKILL, lambda rows: len(rows) >= 1)
    assert status == -signal.SIGKILL
    compiled = rows_in(tmp_path)
    assert all(row["temp_bytes"] and row["compile_seconds"] and row["seconds"] is None for row in compiled)
    status, errors = run_small(tmp_path, signal.SIGTERM, lambda rows: any(row.get("times") for row in rows))
    assert status in (128 + signal.SIGTERM, 0)
    assert "Traceback" not in errors
    timed = rows_in(tmp_path)
    status, errors = run_small(tmp_path)
    assert status == 0, errors
    finished = rows_in(tmp_path)
    assert len(finished) == 4
    for before, after in [*zip(compiled, finished, strict=False), *zip(timed, finished, strict=False)]:
        assert {n: before[n] for n in NUMBERS if before[n] is not None}.items() <= after.items()
        assert before.get("times", []) == after.get("times", [])[: len(before.get("times", []))]
    assert [len(row.get("times", [])) for row in finished] == [3, 3, 3, 0]
    assert all(row["rel_error"] is not None for row in finished)


def test_damaged_results_are_refused(tmp_path):
    (tmp_path / "metagrad.json").write_text("[]")
    status, errors = run_small(tmp_path)
    assert status == 2
    assert errors.strip().splitlines()[-1].startswith(f"error: {tmp_path}/metagrad.json is damaged; remove it")


def test_problem_without_rank_has_no_adapter():
    data = problem.draw(jax.random.key(0), dataclasses.replace(SIZE, rank=0, tied=True))
    assert data.base == {}
    losses_M = problem.example_losses(dataclasses.replace(SIZE, rank=0, tied=True), {})(data.params, data.tokens_MT)
    # Tokens are random and weights small, so every loss is close to the log of the vocabulary size.
    np.testing.assert_allclose(losses_M, jnp.full(4, np.log(32.0)), atol=0.2)
