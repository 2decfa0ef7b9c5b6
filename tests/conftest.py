"""Settings shared by all tests: compiler flags, strict dtype promotion, float64 on request, and the smoke tier."""

import atexit
import contextlib
import gc
import importlib.metadata
import os
import pathlib
import shutil
import sys
import tempfile
import zlib

# Most test time is compilation, so these flags trade the speed of the compiled code for that of the compiler.
# Subprocesses inherit them. An XLA that does not know a flag aborts the process; jaxlib 0.12 dropped the last one.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false"
    * importlib.metadata.version("jaxlib").startswith("0.10."),
)
# Source lines in compiled programs serve profiles, which no test reads; collecting them takes a twelfth of the time.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# By default glibc returns freed memory to the system and faults it in again; keeping it saved 4 % of the CPU time of
# two test files. The workers of pytest-xdist and the commands that tests start inherit these limits, in bytes.
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(10**9))
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(10**9))
os.environ.setdefault("MALLOC_TOP_PAD_", str(2**26))
# Many tests start commands or worker processes, which would parse the package again each time without bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import jax
import pytest
from jax._src.compilation_cache import decompress_executable
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from mass_jax.runtime import compilation_cache

sys.dont_write_bytecode = False  # of the tests either, whose assertions pytest rewrites
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 8)  # for the sharding tests; the others use the first device

# Doctests that join the smoke tier; other tests are marked where they are defined.
SMOKE_DOCTESTS = ("mass_jax/metagrad/", "mass_jax/config/", "mass_jax/lazy.py", "mass_jax/__init__.py")


def _programs_of_run(kept: pathlib.Path | None) -> str:
    """Returns a directory for the programs of this run, with links to those that earlier runs kept."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="mass_jax_compiled_"))
    atexit.register(_keep_programs, directory, kept)
    for entry in kept.glob("*-cache") if kept else ():
        (directory / entry.name).symlink_to(entry)
    return str(directory)


def _keep_programs(directory: pathlib.Path, kept: pathlib.Path | None) -> None:
    """Keeps the new programs of this run that are whole; a killed command leaves others."""
    for entry in directory.glob("*-cache") if kept else ():
        if not entry.is_symlink():
            with contextlib.suppress(OSError, ValueError, zlib.error):
                decompress_executable(entry.read_bytes())
                part = shutil.copy(entry, kept / f"{entry.name}.{os.getpid()}")
                os.replace(part, kept / entry.name)
    shutil.rmtree(directory, ignore_errors=True)


def _limit_size(directory: pathlib.Path, limit: int) -> None:
    """Removes the oldest files of a directory beyond a size in bytes."""
    files = []
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another run removed it
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    for _, size, path in sorted(files, reverse=True):
        limit -= size
        if limit < 0:
            path.unlink(missing_ok=True)


def _kept_programs(name: str) -> pathlib.Path | None:
    """Returns a writable directory in the user's cache directory, or None."""
    try:
        directory = compilation_cache.default_directory() / name
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except (OSError, RuntimeError):  # no home directory, or one that cannot be written
        return None
    return directory


def _cache_compiled_programs() -> None:
    """Keeps programs in the user's cache directory, so that a repeated run compiles less.

    Every process reads and writes a directory of its own: JAX warns of a damaged entry, which is an error within a
    test, and writes entries in place. The commands that tests start share one, which workers of pytest-xdist inherit.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"  # which decides how JAX compresses programs
    commands, tests = _kept_programs(f"commands-{version}"), _kept_programs(f"tests-{version}")
    for kept in (commands, tests):
        if kept:
            _limit_size(kept, 2**29)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs_of_run(commands)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")  # they put the directory into the keys
    if tests is None:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_compilation_cache_dir", _programs_of_run(tests))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


_cache_compiled_programs()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Adds the doctests of the core to the smoke tier, before pytest applies -m."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.nodeid.startswith(SMOKE_DOCTESTS):
            item.add_marker(pytest.mark.smoke)


def pytest_collection_finish(session):
    """Collects garbage seldom: tracing allocates many short-lived objects beside the collected tests, which stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture
def x64():
    """Runs the test in float64, for tests that claim equality."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def no_compilation_cache():
    """Compiles every program of the test, for tests of what is logged or measured about compilation."""
    before = jax.config.jax_enable_compilation_cache
    jax_cache.reset_cache()
    jax.config.update("jax_enable_compilation_cache", False)  # also for the test's threads
    yield
    jax.config.update("jax_enable_compilation_cache", before)
    jax_cache.reset_cache()
