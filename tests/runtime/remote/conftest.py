"""A bucket in memory, and leases that expire soon."""

import fsspec
import pytest

from mass_jax.runtime.remote import lease


def clear() -> None:
    """Empties fsspec's file system in memory."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture(autouse=True)
def _bucket():
    clear()
    yield
    clear()


@pytest.fixture
def _fast(monkeypatch):
    """Leases that expire after a second."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
