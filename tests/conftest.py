"""Settings shared by all tests: compiler flags, strict dtype promotion, float64 on request, and the smoke tier."""

import atexit
import os
import shutil
import tempfile

# Most test time is compilation, so these flags trade the speed of the compiled code for that of the compiler.
# Subprocesses inherit them.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 8)  # for the sharding tests; the others use the first device

# Doctests that join the smoke tier; other tests are marked where they are defined.
SMOKE_DOCTESTS = ("mass_jax/metagrad/", "mass_jax/config/", "mass_jax/lazy.py", "mass_jax/__init__.py")


CACHE_PREFIX = "mass_jax_compiled_"


def _share_compiled_programs():
    """Makes the subprocesses of all tests share a compilation cache; pytest-xdist workers inherit the directory.

    The test process itself does not use it: JAX writes entries without a lock, so a killed subprocess may leave a
    damaged one. JAX skips it with a warning, which is an error within a test.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        directory = tempfile.mkdtemp(prefix=CACHE_PREFIX)
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = directory
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    if CACHE_PREFIX in os.environ["JAX_COMPILATION_CACHE_DIR"]:
        jax.config.update("jax_enable_compilation_cache", False)


_share_compiled_programs()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Adds the doctests of the core to the smoke tier, before pytest applies -m."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.nodeid.startswith(SMOKE_DOCTESTS):
            item.add_marker(pytest.mark.smoke)


@pytest.fixture
def x64():
    """Runs the test in float64, for tests that claim equality."""
    with jax.enable_x64(True):
        yield
