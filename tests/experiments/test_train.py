"""Input checks of experiments.train, which need no process."""

import json
import os
import shutil

import pytest

from mass_jax.training.components import model_directory
from tests.commands import in_process, locked_elsewhere


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--iner_steps=3"], "Did you mean: inner_steps"),
        (["--preset=tyni"], "--preset='tyni' is unknown; did you mean 'tiny'?"),
        (["--adjoint=mixd"], "--adjoint='mixd' is unknown; did you mean 'mixed'?"),
        (["--inner_steps=two"], "--inner_steps=two"),
        (["--seeds=0,x"], "must be a list of int"),
        (["--num_test_examples=2000"], "exceeds --num_train_problems=1000"),
        (["tiny"], "unexpected argument 'tiny'"),
        ([], "--workdir is missing"),
    ],
)
def test_train_reports_invalid_flags_in_one_line(flags, message):
    done = in_process("train", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_train_prints_config_and_exits():
    done = in_process("train", "--print_config", "--gamma=0.7")
    assert done.returncode == 0
    assert json.loads(done.stdout)["gamma"] == 0.7


def test_train_rejects_workdir_in_use(tmp_path):
    with locked_elsewhere(tmp_path):
        done = in_process("train", f"--workdir={tmp_path}")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"--workdir={tmp_path} is in use by process {os.getpid()} on" in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_train_failing_at_start_leaves_no_workdir(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(model_directory("tiny"), model)
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    done = in_process("train", f"--model={model}", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "model.safetensors" in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
