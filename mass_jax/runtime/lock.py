"""Workdir lock, which prevents two runs from using one workdir, also across hosts with a shared file system."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import filelock
from absl import logging

from mass_jax.errors import UserError
from mass_jax.runtime.distributed import agreed_maximum, is_first
from mass_jax.runtime.signals import Stop

LOCK_NAME = ".lock"
LEASE_SECONDS = 60.0  # after this long without a heartbeat, an owner on another host counts as dead
HEARTBEAT_SECONDS = 5.0


@contextlib.contextmanager
def lock_workdir(workdir: pathlib.Path, stop: Stop | None = None, flag: str = "workdir") -> Iterator[None]:
    """Locks a workdir for this run. All processes must call this; process 0 holds the lock.

    The lock is a file `.lock` with the host and process id of its owner, touched by a heartbeat. The lock of a dead
    owner is taken over: at once if the owner ran on this host, otherwise after `LEASE_SECONDS` without a heartbeat.
    The lock is reentrant within a thread. Directories that were created for it are removed if they stay empty.

    Args:
        workdir: directory to lock, created if absent.
        stop: if given, its polls raise a `UserError` once the lock is lost, for example because its file was removed.
        flag: name of the flag that gives the directory, for messages.

    Raises:
        UserError: If another run holds the workdir, or if it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent, lock_workdir(pathlib.Path(parent) / "run"):
    ...     sorted(os.listdir(f"{parent}/run"))
    ['.lock']
    """
    path = workdir.resolve() / LOCK_NAME
    lock = filelock.SoftFileLease(
        path, lease_duration=LEASE_SECONDS, heartbeat_interval=HEARTBEAT_SECONDS, is_singleton=True
    )
    created, failure = _missing(path.parent), ""
    if is_first():
        failure = _acquire(lock, f"--{flag}={workdir}")
    try:
        if agreed_maximum(bool(failure)):
            raise UserError(failure or f"process 0 cannot use --{flag}={workdir}; see its error")
        with contextlib.ExitStack() as watching:
            if stop is not None:
                watching.enter_context(stop.watch(lambda: _loss(lock, f"--{flag}={workdir}")))
            yield
    finally:
        if is_first():
            if not failure:
                lock.release()
            for directory in created:
                with contextlib.suppress(OSError):  # those with content stay
                    directory.rmdir()


def _missing(directory: pathlib.Path) -> list[pathlib.Path]:
    """Returns the directory and its parents that do not exist, innermost first."""
    return [path for path in (directory, *directory.parents) if not path.exists()]


def _acquire(lock: filelock.SoftFileLease, given: str) -> str:
    """Acquires the lock; returns why that is impossible, or "" on success."""
    try:
        pathlib.Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        # Other versions of this package may use other lease settings.
        with contextlib.suppress(filelock.Timeout, filelock.LeaseSettingsMismatch):
            lock.acquire(timeout=0)
            return ""
        owner = lock.owner
        if owner is None or not _runs_here(owner):
            with contextlib.suppress(filelock.Timeout, filelock.LeaseSettingsMismatch):
                _wait_for_silence(lock, given)
                return ""
        return f"{given} is in use by {_describe(lock.owner)}; wait for that run, or choose another"
    except OSError as error:
        return f"{given} cannot be written ({error.strerror or error}); choose another"


def _wait_for_silence(lock: filelock.SoftFileLease, given: str) -> None:
    """Takes the lock over once its owner has shown no heartbeat for the length of a lease.

    Raises:
        filelock.Timeout: If the owner is alive.
    """
    first = _heartbeat(lock)
    logging.warning(
        "%s is locked by %s; waiting up to %d s for its heartbeat",
        *(given, _describe(lock.owner), LEASE_SECONDS),
    )
    lock.acquire(
        timeout=LEASE_SECONDS + 2 * HEARTBEAT_SECONDS,
        poll_interval=HEARTBEAT_SECONDS / 10,
        cancel_check=lambda: _heartbeat(lock) not in (first, None),
    )


def _heartbeat(lock: filelock.SoftFileLease) -> tuple[int, int] | None:
    """Returns the inode of the lock file and the time of its last heartbeat; None without a file."""
    try:
        status = os.stat(lock.lock_file)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _runs_here(owner: Any) -> bool:
    """Returns whether an owner is a live process of this host, by process id and start time; zombies count as dead."""
    try:
        status = pathlib.Path(f"/proc/{owner.pid}/stat").read_bytes()
    except OSError:
        return False
    state, *fields = status[status.rindex(b")") + 1 :].split()  # the command name may contain spaces
    return state not in (b"Z", b"X") and owner.start is not None and int(fields[18]) == owner.start % 2**64


def _describe(owner: Any) -> str:
    return "another run" if owner is None else f"process {owner.pid} on {owner.hostname.partition('?')[0]}"


def _loss(lock: filelock.SoftFileLease, given: str) -> str:
    """Returns why the lock was lost, or "" while it is held. A failed heartbeat alone does not count as a loss."""
    lost = lock.compromise
    if lost is None or lost.reason == "refresh-failed":
        return ""
    return f"{given} was taken over by {_describe(lock.owner)} or its {LOCK_NAME} was removed; this run stops"
