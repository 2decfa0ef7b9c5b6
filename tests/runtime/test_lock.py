"""Tests for mass_jax.runtime.lock, with real processes."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import filelock
import pytest

from mass_jax.errors import UserError
from mass_jax.runtime import Stop, lock, lock_workdir

HOLD = (
    "import pathlib, sys, time; from mass_jax import runtime; from mass_jax.runtime import lock\n"
    "lock.LEASE_SECONDS, lock.HEARTBEAT_SECONDS = 1.0, 0.1\n"
    "with runtime.stop_on_signals() as stop, runtime.lock_workdir(pathlib.Path(sys.argv[1]), stop):\n"
    "    print('held', flush=True)\n"
    "    while True: time.sleep(0.02); stop.poll()"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.1)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a workdir."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_lock_refuses_second_process(holder, tmp_path):
    began = time.monotonic()
    with pytest.raises(UserError, match=f"run is in use by process {holder.pid} on .*; wait for that run"):  # noqa: SIM117
        with lock_workdir(tmp_path / "run"):
            pass
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_lock_is_released_on_signal(number, holder, tmp_path):
    holder.send_signal(number)
    holder.wait()
    assert not (tmp_path / "run").exists()  # the empty directory is removed too


def test_lock_of_killed_process_is_taken_over(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / ".lock").exists()
    began = time.monotonic()
    with lock_workdir(tmp_path / "run"):
        assert time.monotonic() - began < 1


def test_lock_of_zombie_is_taken_over(holder, tmp_path):
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
    with lock_workdir(tmp_path / "run"):
        pass


def test_lock_of_stopped_process_is_kept(holder, tmp_path):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match="is in use by"), lock_workdir(tmp_path / "run"):
        pass


def move_elsewhere(workdir):
    """Makes the lock look like one of another host."""
    path = workdir / ".lock"
    lines = ["host=elsewhere" if line.startswith("host=") else line for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")


def test_lock_of_silent_host_is_taken_over(holder, tmp_path, caplog):
    holder.kill()
    holder.wait()
    move_elsewhere(tmp_path / "run")
    began = time.monotonic()
    with lock_workdir(tmp_path / "run"):
        assert time.monotonic() - began > 0.9
    assert f"locked by process {holder.pid} on elsewhere; waiting up to 1 s" in caplog.text


def test_lock_of_live_host_is_refused(holder, tmp_path):
    holder.kill()
    holder.wait()
    move_elsewhere(tmp_path / "run")
    threading.Timer(0.4, os.utime, [tmp_path / "run" / ".lock"]).start()  # a heartbeat of the other host
    with pytest.raises(UserError, match=f"in use by process {holder.pid} on elsewhere"), lock_workdir(tmp_path / "run"):
        pass


def test_lock_admits_one_of_many(tmp_path):
    child = str(pathlib.Path(__file__).parent / "lock_child.py")
    done = subprocess.run([sys.executable, child, tmp_path / "run", "8"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 8
    winners = [line.removeprefix("held by ") for line in lines if line.startswith("held by ")]
    assert len(winners) == 1
    assert sum(f"is in use by process {winners[0]} on" in line for line in lines) == 7


def test_lock_admits_one_of_many_after_kill(holder, tmp_path):
    holder.kill()
    holder.wait()
    test_lock_admits_one_of_many(tmp_path)


def test_lock_nests_in_one_thread_only(tmp_path):
    found = []

    def other():
        try:
            with lock_workdir(tmp_path):
                found.append("held")
        except UserError as error:
            found.append(str(error))

    with lock_workdir(tmp_path):
        with lock_workdir(tmp_path / "x" / ".."):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert (tmp_path / ".lock").exists()
    assert f"in use by process {os.getpid()}" in found[0]
    assert not (tmp_path / ".lock").exists()


def test_stop_reports_lost_lock(tmp_path):
    stop = Stop()
    with lock_workdir(tmp_path, stop):
        stop.poll()
        (tmp_path / ".lock").unlink()
        with lock_workdir_of_other_run(tmp_path):
            deadline = time.monotonic() + 10
            with pytest.raises(UserError, match=r"was taken over by process \d+ on .* or its .lock was removed"):  # noqa: PT012
                while time.monotonic() < deadline:
                    stop.poll()
                    time.sleep(0.02)
    stop.poll()


def lock_workdir_of_other_run(workdir):
    return filelock.SoftFileLease(workdir / ".lock", lease_duration=1.0).acquire(timeout=0)


def test_lock_names_unwritable_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run cannot be written .Not a directory.; choose another"):  # noqa: SIM117
        with lock_workdir(tmp_path / "file" / "run"):
            pass
