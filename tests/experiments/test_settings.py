"""Error handling shared by all commands."""

import pathlib

import pytest

from experiments import settings


def test_full_disk_exits_with_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        settings.guarded(lambda _: pathlib.Path("/dev/full").write_text("x"))
    assert caught.value.code == 2
    expected = "error: No space left on device: output directory; free disk space and rerun the same command\n"
    assert capsys.readouterr().err == expected


def test_other_system_error_is_raised():
    with pytest.raises(IsADirectoryError):
        settings.guarded(lambda _: pathlib.Path("/").read_text())
