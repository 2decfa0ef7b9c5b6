"""Tests for mass_jax.runtime.distributed, with real processes on loopback."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.launch import free_port
from mass_jax.errors import UserError
from mass_jax.runtime import join, lock_workdir
from mass_jax.runtime.distributed import likely_cause
from mass_jax.runtime.metrics import read_metrics

CHILD = str(pathlib.Path(__file__).parent / "train_child.py")


@pytest.fixture(scope="module")
def environment(environment):
    """Each process has one device; float64 makes results comparable."""
    return environment | {"JAX_NUM_CPU_DEVICES": "1", "JAX_ENABLE_X64": "1"}


def start(workdir, count, environment):
    address = f"127.0.0.1:{free_port()}"
    each = [[address, str(count), str(i)] if count > 1 else [] for i in range(count)]
    return [
        subprocess.Popen([sys.executable, CHILD, str(workdir), *arguments], env=environment, stderr=subprocess.PIPE)
        for arguments in each
    ]


def finish(processes):
    processes = list(processes)
    errors = [process.communicate(timeout=600)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), errors


def weights(path):
    with np.load(path) as stored:
        return [stored[name] for name in stored.files]


@pytest.mark.slow
def test_killed_processes_resume_to_equal_results(environment, tmp_path):
    finish(start(tmp_path / "one", 1, environment))
    two = tmp_path / "two"
    processes = start(two, 2, environment)
    deadline = time.monotonic() + 600
    while len(read_metrics(two / "metrics.jsonl")) < 2:
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for process in processes:
        process.kill()
        process.communicate()
    finish(start(two, 2, environment))
    expected, found = (read_metrics(path / "metrics.jsonl") for path in (tmp_path / "one", two))
    assert [row["step"] for row in found] == [0, 1, 2, 3]
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"step_time"}:
            assert a[name] == pytest.approx(b[name], rel=1e-5, abs=1e-7), name
    finish(start(two, 1, environment))  # one process restores a checkpoint of two
    exact = weights(tmp_path / "one" / "after1.npz")
    for name in ("after2.npz", "after1.npz"):
        for a, b in zip(weights(two / name), exact, strict=True):
            assert np.linalg.norm(a - b) <= 1e-5 * max(np.linalg.norm(b), 1e-3)


def test_processes_agree_on_shared_state(environment, tmp_path):
    """Covers a row of both, a directory that is not shared, and a checkpoint that only one process cannot read."""
    child, address = str(pathlib.Path(__file__).parent / "agree_child.py"), f"127.0.0.1:{free_port()}"
    paths = [str(tmp_path / "shared"), str(tmp_path / "own")]
    with lock_workdir(tmp_path / "ownheld"):
        finish(
            subprocess.Popen(
                [sys.executable, child, paths[0], f"{paths[1]}{i}", address, str(i)],
                env=environment,
                stderr=subprocess.PIPE,
            )
            for i in range(2)
        )
    first, second = (json.loads((tmp_path / "shared" / f"{i}.json").read_text()) for i in range(2))
    assert first["rows"] == second["rows"]
    assert first["rows"][1:] == ["0", "1"]
    for found in (first, second):
        assert "is not one directory for all processes" in found["apart"]
        assert found["step"] == 1
        assert found["locked"]
    assert f"is in use by process {os.getpid()}" in first["held"]
    assert "process 0 cannot use" in second["held"]
    assert first["damaged"] > 0


@pytest.mark.parametrize(
    ("process_id", "message"),
    [
        (0, "not all of --num_processes=3 connected to 127.0.0.1"),
        (1, "process 1 of 3 found no process 0 at --coordinator=127.0.0.1"),
    ],
)
def test_join_reports_missing_processes(process_id, message, environment):
    code = (
        "import sys; from mass_jax.runtime import join; from mass_jax.errors import UserError\n"
        f"try: join('127.0.0.1:{free_port()}', 3, {process_id}, timeout=1)\n"
        "except UserError as error: sys.exit(str(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1  # not an abort from C++
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_join_accepts_bracketed_ipv6(environment):
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    code = (
        f"import sys, jax; from mass_jax import runtime; runtime.join('[::1]:{free_port()}', 2, int(sys.argv[1]), 60)"
    )
    code += "; print(jax.process_count())"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(i)], env=environment, stdout=subprocess.PIPE)
        for i in range(2)
    ]
    assert [process.communicate(timeout=120)[0] for process in processes] == [b"2\n"] * 2


def test_stop_honors_signal_after_join(environment):
    """JAX's preemption service would intercept SIGTERM after joining."""
    code = (
        "import os, signal, time; from mass_jax import runtime\n"
        "with runtime.stop_on_signals() as stop:\n"
        f"    runtime.join('127.0.0.1:{free_port()}', 1, 0, timeout=60); time.sleep(1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(1)\n"
        "    stop.poll()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "Interrupted: SIGTERM" in done.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", 2), "--num_processes=2 needs --coordinator"),
        (("host:1", 2, 2), "--process_id=2 is not in 0..1"),
    ],
)
def test_join_names_contradicting_flag(given, message):
    with pytest.raises(UserError, match=message):
        join(*given)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("DEADLINE_EXCEEDED: Barrier timed out", "not all hosts of the cluster connected within 300 s"),
        ("coordinator_address should be defined.", "no cluster was detected"),
    ],
)
def test_likely_cause_distinguishes_cluster_errors(said, message):
    assert message in likely_cause("auto", 1, 0, 300, said)
