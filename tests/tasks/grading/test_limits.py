"""Tests of the checker's sandbox; each attempt runs in a process of its own."""

import subprocess
import sys

import pytest

SEALED = """
import socket, subprocess, sys, threading
from mass_jax.tasks.grading.workers import limits
canary = sys.argv[2]
if sys.argv[3] == "sealed":
    limits.seal()
try:
    exec(compile("pass", "<frozen test>", "exec"))
    import os
    {attempt}
except PermissionError:
    sys.exit(7)
"""
ATTEMPTS = [
    "eval(\"open(canary, 'w').close()\")",
    "exec(\"open(canary, 'w').close()\")",
    "exec(compile(\"open(canary, 'w').close()\", '<string>', 'exec'))",
    "open(canary, 'w').close()",
    "os.close(os.open(canary, os.O_CREAT | os.O_WRONLY))",
    "os.system('touch ' + canary)",
    "subprocess.run(['touch', canary])",
    "os.posix_spawn('/usr/bin/touch', ['touch', canary], {})",
    "os.fork() or open(canary, 'w').close()",
    "os.mkdir(canary)",
    "os.symlink('/', canary)",
    "socket.socket(socket.AF_UNIX).bind(canary)",
]


def run(source, *arguments):
    return subprocess.run([sys.executable, "-c", source, "x", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_seal_blocks_attempt(attempt, canary):
    sealed = run(SEALED.replace("{attempt}", attempt), str(canary), "sealed")
    assert sealed.returncode == 7, sealed.stderr
    assert not canary.exists()


def test_attempts_succeed_without_seal(tmp_path):
    for i, attempt in enumerate(ATTEMPTS):
        done = run(SEALED.replace("{attempt}", attempt), str(tmp_path / f"c{i}"), "open")
        assert done.returncode == 0, (attempt, done.stderr)


def test_restrain_bounds_resources(canary):
    source = f"""
import resource
from mass_jax.tasks.grading.workers import limits
limits.restrain(400 << 20)
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
try:
    bytearray(800 << 20)
except MemoryError:
    print("memory")
try:
    open({str(canary)!r}, "w").write("x" * 100_000)
except OSError:
    print("file")
"""
    assert run(source).stdout.split() == ["memory", "file"]


def test_die_with_parent_exits_orphans():
    source = "from mass_jax.tasks.grading.workers import limits; limits.die_with_parent(1 << 22); print('alive')"
    done = run(source)
    assert (done.returncode, done.stdout) == (1, "")
