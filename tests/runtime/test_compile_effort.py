"""Flags of the CPU compiler; the environment is restored, and no backend starts."""

import importlib.metadata
import os
import subprocess
import sys

import jax
import pytest

from mass_jax.runtime.compile_effort import use_compile_effort

COMPILE = """
import sys, jax
from mass_jax.runtime.compile_effort import use_compile_effort
print(len(use_compile_effort(sys.argv[1])), float(jax.jit(lambda x: x * x)(3.0)))
"""


@pytest.fixture
def cpu(monkeypatch):
    """Chooses the CPU, with XLA_FLAGS that have no level."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "cpu")
    yield
    jax.config.update("jax_platforms", before)


def test_fast_extends_the_given_flags(cpu):
    added = use_compile_effort("fast")
    assert os.environ["XLA_FLAGS"].split() == ["--xla_cpu_enable_fast_math=false", *added]
    assert "--xla_backend_optimization_level=1" in added


@pytest.mark.parametrize(("version", "more"), [("0.10.2", 1), ("0.12.0", 0)])
def test_fastest_skips_flags_unknown_to_xla(cpu, monkeypatch, version, more):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    fastest = use_compile_effort("fastest")
    assert sum("fusion_emitters" in flag for flag in fastest) == more


def test_full_and_given_level_change_nothing(cpu, monkeypatch):
    assert use_compile_effort("full") == ()
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    assert use_compile_effort("fastest") == ()
    assert os.environ["XLA_FLAGS"] == "--xla_backend_optimization_level=0"


def test_accelerators_keep_their_flags(cpu):
    jax.config.update("jax_platforms", "cuda,cpu")
    assert use_compile_effort("fast") == ()


def test_xla_accepts_all_flags():
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", COMPILE, "fastest"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "9.0"
    assert int(done.stdout.split()[0]) >= 2
