"""Input checks of experiments.train, which need no process."""

import json
import os
import shutil

import pytest

from mass_jax.config import Config
from mass_jax.training.components import model_directory
from mass_jax.training.resolved import resolved
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
        (["--inner_optimizer=adam(b3=1)", "--print_config"], "has no argument 'b3'; did you mean 'b2' or 'b1'?"),
        (["--inner_optimizer=lion", "--print_config"], "'lion' is rejected: it moves by the sign of the gradient"),
        (["--policy_optimizer=absent.py:make", "--print_config"], "--policy_optimizer='absent.py:make': "),
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
    done = in_process("train", "--print_config", "--gamma=0.7", "--inner_optimizer=clip(1) | adam", "--inner_lr=0.1")
    assert done.returncode == 0
    printed = json.loads(done.stdout)
    assert printed["gamma"] == 0.7
    assert printed["inner_optimizer"] == "clip(max_delta=1) | adam(learning_rate=0.1, eps_root=auto)"
    assert printed["policy_optimizer"] == (
        "adam(learning_rate=linear_schedule(init_value=0.0003, end_value=0.0, transition_steps=100))"
    )
    assert resolved(Config.from_json(done.stdout)) == Config.from_json(done.stdout)


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
