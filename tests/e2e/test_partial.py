"""Tests for experiments.benchmarks.partial: finished parts survive every kind of exit."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from experiments.benchmarks.partial import Parts
from mass_jax.errors import UserError

COMMAND = """
import os, pathlib, signal, sys
from experiments import settings
from experiments.benchmarks.partial import Parts

def command(stop):
    parts = Parts(pathlib.Path(sys.argv[1]), {"n": 3}, stop)
    for i in range(3):
        def measure():
            if i == 1 and sys.argv[2] != "none":
                os.kill(os.getpid(), getattr(signal, sys.argv[2]))
            print("measured", i, flush=True)
            return i * i
        parts.of(str(i), measure)
    print(sum(parts.get(str(i)) for i in range(3)))

settings.guarded(command)
"""


def run(path, number):
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    command = [sys.executable, "-c", COMMAND, str(path), number]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(("number", "kept"), [("SIGTERM", 2), ("SIGINT", 2), ("SIGKILL", 1)])
def test_parts_survive_a_signal(tmp_path, number, kept):
    stopped = run(tmp_path / "parts.json", number)
    value = getattr(signal, number)
    assert stopped.returncode == (-value if number == "SIGKILL" else 128 + value)
    assert "Traceback" not in stopped.stderr
    assert len(json.loads((tmp_path / "parts.json").read_text())["parts"]) == kept
    again = run(tmp_path / "parts.json", "none")
    assert again.stdout.split("\n") == [*(f"measured {i}" for i in range(kept, 3)), "5", ""]


def test_parts_of_another_measurement_are_refused(tmp_path):
    Parts(tmp_path / "parts.json", {"seed": 1}).keep("a", 1)
    with pytest.raises(UserError, match="holds parts of another measurement"):
        Parts(tmp_path / "parts.json", {"seed": 2})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"parts": {}}'])
def test_damaged_parts_are_refused(tmp_path, text):
    (tmp_path / "parts.json").write_text(text)
    with pytest.raises(UserError, match="is damaged; remove it"):
        Parts(tmp_path / "parts.json", {})


def test_finish_removes_file(tmp_path):
    parts = Parts(tmp_path / "parts.json", {})
    parts.keep("a", 1)
    parts.finish()
    assert list(tmp_path.iterdir()) == []
