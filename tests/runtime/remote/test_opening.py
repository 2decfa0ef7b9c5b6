"""Workdirs in buckets, on fsspec's file system in memory."""

import contextlib
import json
import pathlib
import time

import pytest

from mass_jax.errors import UserError
from mass_jax.runtime import Stop, open_workdir
from mass_jax.runtime.checksums import verify, write_checksums
from mass_jax.runtime.remote import contents, download, lease, opening, upload
from mass_jax.runtime.remote.store import Store, StoreError
from tests.commands import locked_elsewhere
from tests.runtime.remote.conftest import clear

URL = "memory://bucket/runs/tiny"


def write_run(workdir: pathlib.Path, *steps: int) -> None:
    """Writes what a run with checkpoints after some steps has, and the metrics of one step more."""
    (workdir / "seed0" / "evaluation").mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text('{"steps": 9}\n')
    run = workdir / "seed0" / "mass"
    for step in steps:
        directory = run / "checkpoints" / str(step)
        if not directory.exists():
            (directory / "state" / "d").mkdir(parents=True)
            (directory / "state" / "d" / "weights").write_bytes(bytes([step]) * 1000)
            (directory / "commit_success.txt").touch()
            write_checksums(directory)
    rows = [{"step": step} for step in range(steps[-1] + 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workdir / "seed0" / "evaluation" / "base.jsonl").write_text(f'{{"id": "{steps[-1]}"}}\n')


def open_and_close(local: pathlib.Path) -> None:
    with open_workdir(URL, str(local)):
        pass


def poll_for_a_while(stop: Stop) -> None:
    for _ in range(400):
        stop.poll()
        time.sleep(0.05)


def drop(workdir: pathlib.Path, step: int) -> None:
    """Deletes a checkpoint as orbax does."""
    directory = workdir / "seed0" / "mass" / "checkpoints" / str(step)
    for path in sorted(directory.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    directory.rmdir()


def files(workdir: pathlib.Path) -> dict[str, bytes]:
    """Returns all files except for those whose name starts with a dot."""
    every = {str(path.relative_to(workdir)): path for path in workdir.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in every.items() if not path.name.startswith(".")}


def test_run_resumes_on_another_machine(tmp_path):
    with open_workdir(URL, str(tmp_path / "a")) as workdir:
        write_run(workdir, 2, 4)
        unfinished = workdir / "seed0" / "mass" / "checkpoints" / "6.orbax-checkpoint-tmp-1" / "part"
        unfinished.parent.mkdir()
        unfinished.touch()
        (workdir / ".hidden").write_text("")
    with open_workdir(URL, str(tmp_path / "b")) as resumed:
        unfinished.unlink()
        assert files(resumed) == files(workdir)
        assert verify(resumed / "seed0" / "mass" / "checkpoints" / "4")
        write_run(resumed, 2, 4, 6)
        drop(resumed, 2)
    Store(URL).write("seed0/notes.txt", b"somebody else's")
    with open_workdir(URL, str(tmp_path / "a")) as again:  # a stale directory becomes equal to the bucket
        assert files(again) == files(resumed) | {"seed0/notes.txt": b"somebody else's"}
    assert [path for path in Store(URL).sizes() if "checkpoints/2" in path] == []


@pytest.mark.usefixtures("_fast")
def test_second_run_is_refused(tmp_path):
    with (
        open_workdir(URL, str(tmp_path / "a")),
        pytest.raises(UserError, match=r"--workdir=memory://bucket/runs/tiny is in use by process \d+ on .*; wait"),
        open_workdir(URL, str(tmp_path / "b")),
    ):
        pass
    with open_workdir(URL, str(tmp_path / "b")):  # released, so at once
        pass


@pytest.mark.usefixtures("_fast")
def test_lease_without_heartbeat_is_taken_over(tmp_path):
    stop = Stop()
    with contextlib.ExitStack() as held:
        workdir = held.enter_context(open_workdir(URL, str(tmp_path / "a"), stop))
        write_run(workdir, 2)
        number, held_by = lease.current(Store(URL))
        held.enter_context(lease.Lease(Store(URL), json.loads(held_by)["token"]))  # as if from the same directory
        with pytest.raises(UserError, match="was taken over by process"):
            poll_for_a_while(stop)
        with pytest.raises(lease.LeaseLost):
            held.close()
    assert lease.numbers(Store(URL)) == [number + 1]
    assert Store(URL).sizes("seed0") == {}  # the run that lost the lease uploads nothing
    store = Store(URL)
    store.write(f".lease-{number + 1:08d}.json", b'{"host": "vm", "pid": 1, "time": "then"}')
    with open_workdir(URL, str(tmp_path / "b")):
        assert lease.numbers(store) == [number + 2]


def test_killed_run_keeps_newer_local_files(tmp_path):
    with open_workdir(URL, str(tmp_path / "a")) as workdir:
        write_run(workdir, 2)
    write_run(workdir, 2, 4)  # not uploaded
    with open_workdir(URL, str(tmp_path / "a")):
        pass
    assert any("checkpoints/4/" in path for path in Store(URL).sizes())
    with open_workdir(URL, str(tmp_path / "b")) as elsewhere:
        write_run(elsewhere, 2, 4, 6)
    write_run(workdir, 2, 4, 5)
    with open_workdir(URL, str(tmp_path / "a")):  # another machine has gone on since
        assert files(workdir) == files(elsewhere)


def test_run_that_waited_for_another_takes_its_files(tmp_path, monkeypatch):
    """Another run takes the lease, writes and ends after this run has read the last lease, and before it holds one."""
    with open_workdir(URL, str(tmp_path / "a")) as workdir:
        write_run(workdir, 2)

    def delayed(store, token):
        monkeypatch.undo()
        with open_workdir(URL, str(tmp_path / "b")) as elsewhere:
            write_run(elsewhere, 2, 4)
        return lease.Lease(store, token)

    monkeypatch.setattr(opening, "Lease", delayed)
    with open_workdir(URL, str(tmp_path / "a")):
        assert files(workdir) == files(tmp_path / "b")


def test_metrics_are_uploaded_before_checkpoint_of_the_same_scan(tmp_path, monkeypatch):
    """The run writes a step of metrics and a checkpoint after the scan has seen the metrics."""
    local, copy = tmp_path / "local", tmp_path / "copy"
    write_run(local, 2)
    held = lease.Lease(Store(URL), "token")
    uploader = upload.Uploader(Store(URL), local, held)
    uploader.sync()
    state_of = contents.state_of

    def slow(path):
        found = state_of(path)
        if path.name == "metrics.jsonl":
            monkeypatch.undo()
            write_run(local, 2, 4)
        return found

    monkeypatch.setattr(contents, "state_of", slow)
    uploader.sync()
    held.end(release=True)
    download.download(Store(URL), copy)
    assert (copy / "seed0/mass/checkpoints/4").exists()
    assert len((copy / "seed0/mass/metrics.jsonl").read_text().splitlines()) == 5


class FailingStore(Store):
    """Fails for good at the write or deletion of a given number."""

    def __init__(self, url, left):
        super().__init__(url)
        self.left = left

    def _count(self):
        self.left -= 1
        if self.left < 0:
            raise StoreError("injected")

    def write(self, path, data):
        self._count()
        super().write(path, data)

    def upload(self, path, source):
        self._count()
        super().upload(path, source)

    def delete(self, paths):
        for path in paths:
            self._count()
            super().delete([path])


def test_every_interrupted_upload_is_resumable(tmp_path):
    """A pass that replaces checkpoints 2 and 4 by 4 and 6, cut off before each of its requests."""
    source, started = tmp_path / "source", tmp_path / "started"
    write_run(started, 2, 4)
    write_run(source, 2, 4)
    write_run(source, 2, 4, 6)
    drop(source, 2)
    seen, cut = set(), 0
    while True:
        clear()
        held = lease.Lease(Store(URL), "token")
        upload.Uploader(Store(URL), started, held).sync()
        finished = False
        with contextlib.suppress(StoreError):
            upload.Uploader(FailingStore(URL, cut), source, held).sync()
            finished = True
        copy = tmp_path / f"copy{cut}"
        download.download(Store(URL), copy)
        run = copy / "seed0" / "mass"
        steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir())
        assert all(verify(run / "checkpoints" / str(step)) for step in steps)
        assert 4 in steps
        assert len((run / "metrics.jsonl").read_text().splitlines()) > max(steps)
        assert json.loads((copy / "config.json").read_text()) == {"steps": 9}
        assert ('"6"' in (copy / "seed0/evaluation/base.jsonl").read_text()) <= (6 in steps)
        upload.Uploader(Store(URL), source, held).sync()  # the next pass completes it
        download.download(Store(URL), copy)
        assert files(copy) == files(source)
        held.end(release=True)
        seen.add(tuple(steps))
        cut += 1
        if finished:
            break
    assert seen == {(2, 4), (2, 4, 6), (4, 6)}
    assert cut > 8


def test_failed_uploads_stop_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(upload, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(upload, "GIVE_UP_SECONDS", 0.1)
    (tmp_path / "config.json").write_text("{}")
    held = lease.Lease(Store(URL), "token")
    background = upload.Background(upload.Uploader(FailingStore(URL, 0), tmp_path, held))
    background.__enter__()
    deadline = time.monotonic() + 20
    while not background.failure() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert background.failure() == "injected"
    with pytest.raises(StoreError, match="injected"):
        background.__exit__(None)
    held.end(release=True)


def test_foreign_files_are_neither_downloaded_nor_removed(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"holds other files than those of memory://.*; give another directory"):
        open_and_close(tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    Store(URL).write("data/large.bin", b"")
    with pytest.raises(UserError, match=r"holds 'data' but no config\.json, so it is not a workdir"):
        open_and_close(tmp_path / "b")
    Store(URL).delete(["data/large.bin"])
    for name in ("config.json", "../evil", "a/../../evil", "a/.hidden"):
        Store(URL).write(name, b"{}")
    with open_workdir(URL, str(tmp_path / "c" / "d")) as workdir:
        assert files(workdir) == {"config.json": b"{}"}
    assert not (tmp_path / "c" / "evil").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/run", "ftp:// is not supported"),
        ("gs://bucket", "names no path in a bucket"),
        ("gs:///run", "names no path in a bucket"),
        ("s3://key:secret@bucket/run", "the URL contains '@'"),
        ("s3://bucket/a/../b", "use a path without"),
        ("s3://bucket/run*", "use a path without"),
        ("s3://bucket?key=secret", "names no path in a bucket"),
        ("gs://bucket/run?key=secret", "--workdir=gs://bucket/run: use a path without"),
        ("ftp://host/run?key=secret", "ftp:// is not supported"),
    ],
)
def test_invalid_urls_are_refused(url, said):
    with pytest.raises(UserError, match=said) as caught, open_workdir(url):
        pass
    assert "secret" not in str(caught.value)


def test_local_workdir_belongs_to_a_url(tmp_path):
    with pytest.raises(UserError, match="needs a URL as --workdir"), open_workdir(str(tmp_path), "x"):
        pass
    with pytest.raises(UserError, match="is a URL; give a directory"), open_workdir(URL, "gs://x/y"):
        pass
    assert opening.default_local(URL).name == "tiny"
    local = tmp_path / "a"
    with locked_elsewhere(local), pytest.raises(UserError, match=f"--local_workdir={local} is in use by process"):
        open_and_close(local)
    with (
        pytest.raises(UserError, match="--local_workdir=gs://x/y is a URL") as caught,
        open_workdir(URL, "gs://x/y?k=s"),
    ):
        pass
    assert "k=s" not in str(caught.value)
