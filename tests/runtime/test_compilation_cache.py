"""Cache of compiled programs; the tests of this process restore JAX's settings and compile nothing."""

import os
import subprocess
import sys
import warnings

import jax
import pytest

from mass_jax.runtime.compilation_cache import use_compilation_cache

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
    "jax_persistent_cache_enable_xla_caches",
    "jax_compilation_cache_max_size",
)
COMPILE = """
import sys, jax
from mass_jax.runtime import compilation_cache
compilation_cache.SHORTEST = 0.0
compilation_cache.use_compilation_cache(sys.argv[1])
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event == "/jax/compilation_cache/cache_hits"))
print(jax.jit(lambda x: x * x)(3), jax.jit(lambda x: x + x)(3), sum(hits))
"""


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Removes the directory that the tests give to commands, and restores the settings."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def start(path):
    """Starts a process that compiles two programs with a cache."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", COMPILE, str(path)], env={**os.environ, "XLA_FLAGS": ""}, **options)


def test_default_is_in_the_users_cache_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = use_compilation_cache("auto")
    assert path.parent == tmp_path / "mass_jax" / "compiled"
    assert jax.config.jax_compilation_cache_dir == str(path)


def test_off_and_environment_change_nothing(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    assert use_compilation_cache("off") is None
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "given"))
    assert use_compilation_cache(str(tmp_path / "other")) is None
    assert jax.config.jax_compilation_cache_dir == before
    assert not (tmp_path / "other").exists()


def test_unwritable_directory_warns_once(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory", encoding="utf-8")
    assert use_compilation_cache(str(blocked / "cache")) is None
    (record,) = caplog.records
    assert "no compilation cache" in record.getMessage()


def test_processes_share_a_cache_and_repair_is_named_once(tmp_path):
    """Two processes write the same entries at once; later ones read them, or compile again what is damaged."""
    both = [start(tmp_path), start(tmp_path)]
    assert [process.communicate()[1] for process in both] == ["", ""]
    output, errors = start(tmp_path).communicate()
    assert output.split() == ["9", "6", "2"]
    assert errors == ""
    for entry in tmp_path.glob("*-cache"):
        entry.write_bytes(entry.read_bytes()[:100])
    output, errors = start(tmp_path).communicate()
    assert output.split()[:2] == ["9", "6"]
    assert errors.count("Error reading persistent compilation cache entry") == 1
    assert f"to repair the cache, delete {tmp_path}" in errors
    assert errors.count("\n") == 1
