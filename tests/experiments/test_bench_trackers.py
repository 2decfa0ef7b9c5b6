"""Benchmark of trackers."""

import re

from tests.commands import in_process


def test_each_installed_tracker_has_a_row(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    done = in_process("benchmarks.trackers", "--steps=2", "--step_seconds=0.5")
    assert done.returncode == 0, done.stderr
    assert "| tracker | opening | 2 steps | closing | share of steps of 0.5 s |" in done.stdout
    assert re.search(r"^\| tensorboard (\| [\d.]+ s ){3}\| [\d.]+% \|$", done.stdout, re.MULTILINE)
