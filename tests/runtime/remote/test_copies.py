"""Workdirs in buckets that are only read: their local copies, and the commands that read them."""

import contextlib
import json
import pathlib

import pytest

from mass_jax.audit import log
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.runtime import open_workdir, read_workdir
from mass_jax.runtime.remote import opening
from mass_jax.runtime.remote.store import Store
from mass_jax.serving import loading, source
from tests.commands import in_process, locked_elsewhere
from tests.runtime.remote.test_opening import URL, files, write_run


def read(local: pathlib.Path) -> dict[str, bytes]:
    with read_workdir(URL, str(local)) as copy:
        return files(copy)


def test_read_workdir_writes_nothing_to_bucket(tmp_path):
    with pytest.raises(UserError, match="holds no run; check the URL"):
        read(tmp_path / "none")
    with open_workdir(URL, str(tmp_path / "a")) as workdir:
        write_run(workdir, 2)
    before = dict(Store(URL).sizes())
    assert read(tmp_path / "b") == files(workdir)
    assert Store(URL).sizes() == before


def test_directory_of_a_run_is_no_place_for_a_copy(tmp_path):
    with open_workdir(URL, str(tmp_path / "a")) as workdir:
        write_run(workdir, 2)
    write_run(workdir, 2, 4)  # not uploaded
    before = files(workdir)
    with pytest.raises(UserError, match=r"--local_workdir=.* is the directory of a run, whose files may be newer than"):
        read(workdir)
    assert files(workdir) == before


def test_copy_is_locked_while_it_is_used(tmp_path, monkeypatch):
    Store(URL).write("config.json", b"{}")
    monkeypatch.setattr(opening, "user_cache", lambda: tmp_path)
    with contextlib.ExitStack() as held:
        path = held.enter_context(read_workdir(URL))
        assert (path / ".lock").exists()
    assert not (path / ".lock").exists()
    with (
        locked_elsewhere(path),
        pytest.raises(UserError, match=rf"--local_workdir={path} is in use by process \d+ on .*, or choose another"),
        read_workdir(URL),
    ):
        pass
    assert read(tmp_path / "second") == {"config.json": b"{}"}


@pytest.mark.parametrize(
    ("command", "module", "name"),
    [
        (["audit", "show"], log, "records"),
        (["export", "--out=OUT"], source, "load_model"),
        (["solve", "--no_adapt", "--problem=1"], loading, "load"),
    ],
)
def test_commands_hold_the_lock_of_their_copy(command, module, name, tmp_path, monkeypatch):
    Store(URL).write("config.json", b"{}")
    copy = tmp_path / "copy"

    def look(*_, **__):
        raise UserError(f"locked: {(copy / '.lock').exists()}")

    monkeypatch.setattr(module, name, look)
    given = [argument.replace("OUT", str(tmp_path / "out")) for argument in command]
    done = in_process(*given, f"--workdir={URL}", f"--local_workdir={copy}")
    assert done.stderr.splitlines()[-1] == "error: locked: True"
    assert not (copy / ".lock").exists()


def test_report_of_a_copy_stays(tmp_path):
    with open_workdir(URL, str(tmp_path / "a")) as workdir:
        write_run(workdir, 2)
        (workdir / "report").mkdir()
        (workdir / "report" / "table1.md").write_text("of the run")
    assert "report/table1.md" not in read(tmp_path / "b")
    made = tmp_path / "b" / "report" / "table1.md"
    made.parent.mkdir()
    made.write_text("of --report_only")
    assert read(tmp_path / "b")["report/table1.md"] == b"of --report_only"


def test_print_config_reads_only_the_settings(tmp_path):
    given = ("evaluate", f"--workdir={URL}", f"--local_workdir={tmp_path / 'copy'}", "--print_config")
    fresh = in_process(*given, "--gamma=0.3")
    assert json.loads(fresh.stdout)["gamma"] == 0.3
    Store(URL).write("config.json", Config(gamma=0.7).to_json().encode())
    assert json.loads(in_process(*given).stdout)["gamma"] == 0.7
    assert json.loads(in_process(*given, "--gamma=0.3").stdout)["gamma"] == 0.3  # allowed without results
    Store(URL).write("seed0/mass/metrics.jsonl", b"{}")
    refused = in_process(*given, "--gamma=0.3")
    assert refused.stderr.splitlines()[-1].startswith(f"error: --workdir={URL} was started with gamma=0.7, now it is")
    Store(URL).write("config.json", b"\xff")
    assert f"error: {URL}/config.json is damaged" in in_process(*given).stderr
    assert not (tmp_path / "copy").exists()
