"""Tests for experiments.benchmarks.partial: finished parts survive every kind of exit."""

import json
import signal
import subprocess
import sys

import pytest

from experiments.benchmarks.partial import Parts

COMMAND = """
import os, pathlib, signal, sys
from experiments import settings
from experiments.benchmarks.partial import Parts

def command(stop):
    parts = Parts(pathlib.Path(sys.argv[1]), {"n": 3}, stop)
    for i in range(3):
        def measure():
            if i == 1:
                os.kill(os.getpid(), getattr(signal, sys.argv[2]))
            return i * i
        parts.of(str(i), measure)

settings.guarded(command)
"""


@pytest.mark.parametrize(("number", "kept"), [("SIGTERM", 2), ("SIGINT", 2), ("SIGKILL", 1)])
def test_parts_survive_a_signal(environment, tmp_path, number, kept):
    path, value = tmp_path / "parts.json", getattr(signal, number)
    command = [sys.executable, "-c", COMMAND, str(path), number]
    stopped = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert stopped.returncode == (-value if number == "SIGKILL" else 128 + value)
    assert "Traceback" not in stopped.stderr
    assert len(json.loads(path.read_text())["parts"]) == kept
    parts, measured = Parts(path, {"n": 3}), []
    for i in range(3):
        parts.of(str(i), lambda i=i: measured.append(i) or i * i)
    assert measured == list(range(kept, 3))
    assert [parts.get(str(i)) for i in range(3)] == [0, 1, 4]
