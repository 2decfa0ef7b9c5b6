"""Settings shared by every test: strict promotion, float64 on request."""

import os

# Compilation dominates most tests, and what LLVM makes of a program is not what they are about. Their subprocesses
# inherit this.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 8)  # for the tests that shard; the others use the first


@pytest.fixture
def x64():
    """Runs the test in float64, where equality is claimed."""
    with jax.enable_x64(True):
        yield
