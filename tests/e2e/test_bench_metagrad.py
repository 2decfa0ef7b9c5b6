"""experiments.bench_metagrad as a process: killed, stopped and resumed."""

import json
import signal
import subprocess
import sys
import time

from tests.commands import in_process

SMALL_COMMAND = """
from absl import flags
from experiments import bench_metagrad, settings
from experiments.benchmarks import metagrad as bench
from experiments.benchmarks.metagrad_cases import PRESETS
from third_party.peers import problem

PRESETS["tiny"] = bench.Preset(problem.Size(1, 16, 24, 4, 2, 32, 2, 4, 8, 2), rounds=20, loss_chunk=4, chunk=2)
policies = {"remat": "block"}, {}, {"loss_chunk": 4, "timed": False}
bench.cases = lambda preset: [bench.Case("FirstOrder", **policy) for policy in policies]
bench_metagrad.define()
settings.run(bench_metagrad.main)
"""
NUMBERS = ("temp_bytes", "compile_seconds", "seconds", "rel_error")


def rows_in(out):
    path = out / "metagrad.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def run_small(out, environment, number=None, reached=None):
    """Runs the command, sends a signal once `reached` holds for the saved rows, and returns status and stderr."""
    command = [sys.executable, "-c", SMALL_COMMAND, "--preset=tiny", f"--out={out}", "--machine=a test"]
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


def test_interrupted_run_keeps_finished_measurements(environment, tmp_path):
    """Kills the run while it compiles, stops it during timing, and resumes it."""
    status, _ = run_small(tmp_path, environment, signal.SIGKILL, lambda rows: len(rows) >= 1)
    assert status == -signal.SIGKILL
    compiled = rows_in(tmp_path)
    assert all(row["temp_bytes"] and row["compile_seconds"] and row["seconds"] is None for row in compiled)
    status, errors = run_small(
        tmp_path, environment, signal.SIGTERM, lambda rows: any(row.get("times") for row in rows)
    )
    assert status in (128 + signal.SIGTERM, 0)
    assert "Traceback" not in errors
    timed = rows_in(tmp_path)
    status, errors = run_small(tmp_path, environment)
    assert status == 0, errors
    finished = rows_in(tmp_path)
    assert len(finished) == 3
    for before, after in [*zip(compiled, finished, strict=False), *zip(timed, finished, strict=False)]:
        assert {n: before[n] for n in NUMBERS if before[n] is not None}.items() <= after.items()
        assert before.get("times", []) == after.get("times", [])[: len(before.get("times", []))]
    assert [len(row.get("times", [])) for row in finished] == [20, 20, 0]
    assert all(row["rel_error"] is not None for row in finished)


def test_damaged_results_are_refused(tmp_path):
    (tmp_path / "metagrad.json").write_text("[]")
    done = in_process("bench_metagrad", "--preset=tiny", f"--out={tmp_path}", "--machine=a test")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path}/metagrad.json is damaged; remove it")
