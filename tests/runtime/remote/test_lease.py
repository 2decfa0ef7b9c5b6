"""Leases of workdirs in buckets, and the errors of stores."""

import json
import time

import pytest

from mass_jax.errors import UserError
from mass_jax.runtime.remote import lease
from mass_jax.runtime.remote.store import Store, StoreError

URL = "memory://bucket/runs/tiny"


class RepeatingStore(Store):
    """Loses the first response of every conditional request, which is therefore repeated."""

    def create(self, path, data):
        super().create(path, data)
        return super().create(path, data)


def test_repeated_request_is_not_another_run():
    with lease.Lease(RepeatingStore(URL), "token") as held:
        held.check()
        assert held.loss() == ""


@pytest.mark.usefixtures("_fast")
def test_lease_created_meanwhile_is_another_run():
    class LateStore(Store):
        def create(self, path, data):
            super().create(path, json.dumps({"host": "vm", "pid": 1, "time": "then"}).encode())
            return super().create(path, data)

    with pytest.raises(UserError, match="is in use by process 1 on vm"):
        lease.Lease(LateStore(URL), "token")


def test_lease_resumes_that_of_the_same_directory_only():
    found = []
    for token in ("a", "a", "b", "a"):
        with lease.Lease(Store(URL), token) as held:
            found.append(held.resumes)
    assert found == [False, True, False, False]


def test_lease_is_checked_after_the_machine_was_suspended(monkeypatch):
    """While a machine is suspended, `time.monotonic` stands still."""
    first = lease.Lease(Store(URL), "token")
    with lease.Lease(Store(URL), "token"):
        first.check()  # the bucket was asked recently
        clock, gettime = lease._CLOCK, time.clock_gettime
        with monkeypatch.context() as patch:
            patch.setattr(time, "clock_gettime", lambda which: gettime(which) + 100.0 * (which == clock))
            with pytest.raises(lease.LeaseLost):
                first.check()
    first.end(release=True)


@pytest.mark.parametrize("error", [OSError("Forbidden: https://storage/b/run\ndenied"), PermissionError("denied")])
def test_refused_access_names_the_login_alone(error):
    store = Store(URL)
    store.url = "gs://bucket/run"
    with (
        pytest.raises(StoreError, match=r"gs://bucket/run cannot be read .*; give this account access"),
        store._named("read"),
    ):
        raise error
