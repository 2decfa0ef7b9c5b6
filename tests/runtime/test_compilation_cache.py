"""Cache of compiled programs; each test restores JAX's settings."""

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


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Removes the directory that the tests give to commands, and restores the settings."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


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
