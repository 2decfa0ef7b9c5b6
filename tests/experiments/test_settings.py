"""Error handling shared by all commands."""

import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from experiments import settings
from tests.commands import in_process


def test_full_disk_exits_with_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        settings.guarded(lambda _: pathlib.Path("/dev/full").write_text("x"))
    assert caught.value.code == 2
    expected = "error: No space left on device: output directory; free disk space and rerun the same command\n"
    assert capsys.readouterr().err == expected


def test_device_without_memory_exits_with_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        settings.guarded(lambda _: jax.block_until_ready(jax.jit(lambda: jnp.ones(2**46, jnp.int8))()))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the device is out of memory (Out of memory allocating 70368744177664 bytes")
    assert "--tasks_at_a_time=1, --example_chunk=1, a smaller --eval_batch" in error
    assert "with another --workdir if this one has results" in error
    assert error.count("\n") == 1


def test_other_system_error_is_raised():
    with pytest.raises(IsADirectoryError):
        settings.guarded(lambda _: pathlib.Path("/").read_text())


OF_A_RUN = (
    "benchmarks.compile",
    "benchmarks.number_formats",
    "estimators",
    "inner_optimizers",
    "plan",
    "screen",
    "train",
    "validate",
)
"""Commands that take the settings of a run."""


@pytest.mark.parametrize("module", [*OF_A_RUN, "evaluate"])
def test_help_lists_the_settings_and_the_directory(module):
    shown = in_process(module, "--help").stdout
    for name in ("preset", "inner_lr", "out" if module in ("plan", "benchmarks.compile") else "workdir"):
        assert f"  --{name}: " in shown


@pytest.mark.parametrize("module", OF_A_RUN)
def test_settings_are_printed_without_workdir(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = in_process(module, "--print_config", "--inner_steps=5")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["inner_steps"] == 5
    assert not list(tmp_path.iterdir())
