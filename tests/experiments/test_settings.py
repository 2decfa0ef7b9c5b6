"""Error handling shared by all commands."""

import os
import pathlib
import subprocess
import sys

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


def test_commands_drop_library_messages():
    """A run without JAX_PLATFORMS on a machine without a TPU: JAX reports each absent backend as information."""
    script = (
        "import jax; from absl import logging; from experiments import settings\n"
        "def main(_):\n"
        "    logging.info('own message'); jax.devices()\n"
        "settings.run(main)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "own message" in line
