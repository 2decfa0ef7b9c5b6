"""Workdirs in an emulator of S3 (moto) and in one of Google Cloud Storage; skipped where they are not installed."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from mass_jax.errors import UserError
from mass_jax.runtime import open_workdir
from mass_jax.runtime.remote import lease
from mass_jax.runtime.remote.store import Store
from tests.commands import ROOT
from tests.runtime.remote.test_opening import files, write_run

SMALL = (
    "--preset=tiny --steps=8 --warmup_steps=1 --tasks_per_step=4 --num_examples=2 --num_test_examples=2 --eval_batch=4 "
    "--inner_steps=1 --num_attempts=2 --num_train_problems=8 --num_eval_problems=4 --checkpoint_every=2 "
    "--methods=mass --lora_targets=q_proj"
).split()
# The command with short intervals.
CHILD = (
    "import runpy; from mass_jax.runtime.remote import lease, upload; upload.INTERVAL_SECONDS = 0.1; "
    "lease.LEASE_SECONDS, lease.HEARTBEAT_SECONDS, lease.POLL_SECONDS = 4.0, 0.5, 0.2; "
    "runpy.run_module('experiments.train', run_name='__main__', alter_sys=True)"
)


@pytest.fixture(scope="module")
def s3():
    """URL of a bucket in moto's server."""
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # one line per request
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(scope="module")
def gs():
    """URL of a bucket in an emulator of Google Cloud Storage, which ignores the conditions of requests."""
    pytest.importorskip("gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield "gs://bucket"
    server.stop()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_workdir_round_trip(scheme, request, tmp_path, monkeypatch):
    url = f"{request.getfixturevalue(scheme)}/round/trip"
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
    with open_workdir(url, str(tmp_path / "a")) as workdir:
        write_run(workdir, 2, 4)
        with pytest.raises(UserError, match="is in use by process"):
            open_workdir(url, str(tmp_path / "b")).__enter__()
    with open_workdir(url, str(tmp_path / "b")) as copy:
        assert files(copy) == files(workdir)
    assert [name for name in Store(url).top() if name.startswith(".lease-")] == [".lease-00000002.json"]


def test_create_is_conditional(s3):
    store = Store(f"{s3}/create")
    assert store.create("lease", b"1")
    assert not store.create("lease", b"2")
    assert store.read("lease") == b"1"


def test_errors_name_url_and_fix(s3, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"s3://absent/run cannot be written .*; does the bucket exist\?") as caught:
        open_workdir("s3://absent/run", str(tmp_path / "a")).__enter__()
    assert "\n" not in str(caught.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"s3://bucket/run cannot be read .*; give this account access"):
        open_workdir(f"{s3}/run", str(tmp_path / "b")).__enter__()


@pytest.mark.slow
def test_killed_training_resumes_from_bucket(s3, tmp_path):
    """SIGKILL after the first checkpoint, then a fresh local directory: the results are those of a local run."""
    from tests.e2e.test_train import table_of, without_times

    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, *SMALL]
    url = f"{s3}/runs/tiny"

    def run(*flags: str) -> None:
        done = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    run(f"--workdir={tmp_path / 'local'}")
    with (tmp_path / "log").open("wb") as log:
        killed = subprocess.Popen(
            [*command, f"--workdir={url}", f"--local_workdir={tmp_path / 'a'}"], env=environment, stderr=log
        )
        store, deadline = Store(url), time.monotonic() + 600
        while not any(path.endswith("checksums.json") for path in store.sizes()):
            assert killed.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()  # noqa: PT018
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert not any(path.startswith("report/") for path in store.sizes())
    run(f"--workdir={url}", f"--local_workdir={tmp_path / 'b'}")
    expected = tmp_path / "local"
    assert without_times(tmp_path / "b") == without_times(expected)
    assert table_of(tmp_path / "b") == table_of(expected)
    assert files(tmp_path / "b").keys() == {path for path in store.sizes() if not path.startswith(".")}
    with pytest.raises(UserError, match="holds other files"):
        open_workdir(url, str(tmp_path)).__enter__()
