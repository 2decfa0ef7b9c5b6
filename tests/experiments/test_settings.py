"""What is common to all commands: which errors end in one line."""

import pathlib

import pytest

from experiments import settings


def test_a_full_disk_ends_in_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        settings.guarded(lambda _: pathlib.Path("/dev/full").write_text("x"))
    assert caught.value.code == 2
    assert "No space left on device: where this run writes; free some" in capsys.readouterr().err


def test_another_error_of_the_system_is_no_fault_of_the_user():
    with pytest.raises(IsADirectoryError):
        settings.guarded(lambda _: pathlib.Path("/").read_text())
