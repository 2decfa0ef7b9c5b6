"""The command experiments.serve: its help, and what a second signal prints."""

import subprocess
import sys

import pytest

from tests.commands import ROOT, in_process

# Two signals while a request is being answered.
TWICE = """
import asyncio, os, pathlib, signal
from experiments import serve
from mass_jax import runtime

async def main():
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)

handle = serve.on_signal(runtime.Stop(), pathlib.Path("runs/events.jsonl"))
signal.signal(signal.SIGTERM, lambda number, _: handle(number))
asyncio.run(main())
"""


@pytest.mark.parametrize("command", ["serve", "solve"])
def test_help_lists_flags_of_the_service(command):
    done = in_process(command, "--help")
    for name in ("workdir", "model", "policy", "log", "run", "compilation_cache"):
        assert f"--{name}: " in done.stdout
    assert "--[no]alsologtostderr" not in done.stdout


@pytest.mark.parametrize("flag", ["sampler_timeout", "sampler_tolerance"])
def test_limits_of_the_server_reach_the_settings(flag):
    done = in_process("solve", "--model=tiny", "--no_adapt", "--problem=x", "--sampler=vllm", f"--{flag}=-1")
    assert done.stderr.startswith(f"error: --{flag}=-1.0 is below its minimum 0")
    assert done.returncode == 2


def test_second_signal_ends_server_with_one_line():
    done = subprocess.run([sys.executable, "-c", TWICE], cwd=ROOT, capture_output=True, text=True, check=False)
    first, second = done.stderr.splitlines()
    assert first.startswith("stopping at the next safe point")
    assert second == "stopped at once; every released answer is in the log runs/events.jsonl"
    assert done.returncode == 130
