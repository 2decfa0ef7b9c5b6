"""Lease of a workdir in a bucket, which prevents two runs from writing to it."""

import json
import os
import socket
import threading
import time
from typing import Any, Self

from absl import logging

from mass_jax.errors import UserError
from mass_jax.runtime.remote.store import Store, StoreError

LEASE_SECONDS = 90.0  # after this long without a heartbeat, an owner counts as dead
HEARTBEAT_SECONDS = 15.0
POLL_SECONDS = 3.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # BOOTTIME advances during suspension
_BEFORE, _AFTER = ".lease-", ".json"


class LeaseLost(UserError):
    """Raised if another run has taken over the workdir."""


class Lease:
    """Right to write to a workdir in a bucket, held by one run at a time.

    Leases are objects `.lease-NUMBER.json`; the one with the highest number counts. A run that finds it released, or
    without a heartbeat for `LEASE_SECONDS`, creates the next one by a conditional request, which only one of several
    runs can. Its owner rewrites the object every `HEARTBEAT_SECONDS`. Clocks of different hosts are not compared.

    Args:
        store: the workdir.
        token: identifies the local directory of the run; the last lease of the same directory is taken over at once,
            because whoever holds the lock of the directory knows that its owner is dead.

    Attributes:
        resumes: whether the last lease was of the same directory, so that no other run has written since.

    Raises:
        UserError: If another run holds the lease; the message names its host and process.
        StoreError: If the bucket cannot be read or written.
    """

    def __init__(self, store: Store, token: str):
        self._store, self._token, self._beats, self._lost = store, token, 0, ""
        self._ended, self._mutex = threading.Event(), threading.Lock()
        before = current(store)
        if before is not None:
            before = self._wait_for(*before)
        self.resumes = before is not None and holder(before[1]).get("token") == token
        self._number = 1 if before is None else before[0] + 1
        if not self._create():
            raise self._in_use(current(store))
        highest = max(numbers(store))
        if highest != self._number:  # this run was suspended between reading and creating
            store.delete([_name(self._number)])
            raise self._in_use(current(store))
        store.delete(_name(number) for number in numbers(store) if number < self._number)
        self._checked = _now()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(release=True)

    def end(self, release: bool) -> None:
        """Stops the heartbeat; with `release`, another run may take over at once."""
        self._ended.set()
        self._thread.join()
        if release and not self._lost:
            try:
                self._store.write(_name(self._number), self._contents(released=True))
            except StoreError as error:
                logging.warning("the lease expires in %d s instead of now: %s", LEASE_SECONDS, error)

    def loss(self) -> str:
        """Returns why the lease was lost, or "" while it is held."""
        return self._lost

    def check(self) -> None:
        """Checks that the lease is held; asks the bucket unless the heartbeat did so recently.

        Raises:
            LeaseLost: If another run has taken over.
            StoreError: If the bucket cannot be read.
        """
        if _now() - self._checked > 2 * HEARTBEAT_SECONDS:
            self._renew()
        if self._lost:
            raise LeaseLost(self._lost)

    def _create(self) -> bool:
        """Creates the lease; returns whether it is this run's."""
        name, mine = _name(self._number), self._contents()
        if self._store.create(name, mine):
            return True
        try:  # a request whose response was lost is repeated, and finds the lease that it created
            return self._store.read(name) == mine
        except FileNotFoundError:
            return False

    def _renew(self) -> None:
        """Writes a heartbeat, unless a higher lease exists or the own one was removed."""
        with self._mutex:
            found = numbers(self._store)
            if not found or max(found) != self._number:
                owner = describe(current(self._store)) if found else "nobody: its lease was removed"
                self._lost = f"--workdir={self._store.url} was taken over by {owner}; this run stops"
                return
            self._beats += 1
            self._store.write(_name(self._number), self._contents())
            self._checked = _now()

    def _beat(self) -> None:
        while not self._lost and not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                self._renew()
            except (StoreError, OSError) as error:  # others may still respect the lease
                logging.warning("no heartbeat: %s", error)

    def _contents(self, released: bool = False) -> bytes:
        mine = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid(), "beat": self._beats}
        mine |= {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "released": released}
        return json.dumps(mine).encode()

    def _wait_for(self, number: int, contents: bytes) -> tuple[int, bytes]:
        """Waits until a lease is free; returns it.

        Raises:
            UserError: If its owner is alive.
        """
        if _is_free(contents, self._token):
            return number, contents
        logging.warning(
            "--workdir=%s is in use by %s; waiting up to %d s for its heartbeat",
            *(self._store.url, describe((number, contents)), LEASE_SECONDS),
        )
        deadline = time.monotonic() + LEASE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            now = current(self._store)
            if now is not None and now[0] == number and _is_free(now[1], self._token):
                return now
            if now != (number, contents):
                raise self._in_use(now)
        return number, contents

    def _in_use(self, owner: tuple[int, bytes] | None) -> UserError:
        return UserError(
            f"--workdir={self._store.url} is in use by {describe(owner)}; wait for that run, or choose another"
        )


def numbers(store: Store) -> list[int]:
    """Returns the numbers of all leases of a workdir."""
    leases = [name for name in store.top() if name.startswith(_BEFORE) and name.endswith(_AFTER)]
    found = [name.removeprefix(_BEFORE).removesuffix(_AFTER) for name in leases]
    return [int(number) for number in found if number.isascii() and number.isdigit()]


def current(store: Store) -> tuple[int, bytes] | None:
    """Returns the number and the contents of the lease that counts, or None."""
    while found := numbers(store):
        try:
            return max(found), store.read(_name(max(found)))
        except FileNotFoundError:
            continue  # a run that took over has just deleted it
    return None


def holder(contents: bytes) -> dict[str, Any]:
    """Returns the fields of a lease; empty if it is damaged."""
    try:
        found = json.loads(contents)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def describe(lease: tuple[int, bytes] | None) -> str:
    """Returns the owner of a lease for messages.

    >>> describe((1, b'{"host": "vm", "pid": 7, "time": "2026-01-01T00:00:00Z"}'))
    'process 7 on vm (last heartbeat 2026-01-01T00:00:00Z)'
    """
    found = holder(b"" if lease is None else lease[1])
    if not {"host", "pid", "time"} <= found.keys():
        return "another run"
    text = f"process {found['pid']} on {found['host']} (last heartbeat {found['time']})"
    return text if len(text) < 200 and text.isprintable() else "another run"


def _is_free(contents: bytes, token: str) -> bool:
    found = holder(contents)
    return found.get("released") is True or found.get("token") == token


def _now() -> float:
    """Returns seconds since an arbitrary start, including those during which the machine was suspended."""
    return time.clock_gettime(_CLOCK)


def _name(number: int) -> str:
    return f"{_BEFORE}{number:08d}{_AFTER}"
