"""Runs in unusual locations: other working directories, links, spaces, `~`; rejected ones write nothing."""

import json
import shutil

import pytest

from mass_jax.config.config import OPTIMIZERS
from mass_jax.training.components import model_directory
from tests.commands import as_process, in_process

SMALL = "--preset=tiny --num_test_examples=2 --eval_batch=4 --num_eval_problems=2 --num_train_problems=4".split()


def test_run_resumes_from_another_directory(environment, tmp_path, monkeypatch):
    """Starts with relative paths in one directory and resumes through a link and `~` from another."""
    home, elsewhere = tmp_path / "home ü", tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(model_directory("tiny"), home / "models" / "m 1")
    (tmp_path / "link").symlink_to(home)
    given = ["evaluate", *SMALL, "--methods=base"]
    done = as_process(*given, "--model=models/m 1", "--workdir=runs/a b", cwd=home, env=environment)
    assert done.returncode == 0, done.stderr
    config = json.loads((home / "runs" / "a b" / "config.json").read_text())
    assert config["model"] == str(home / "models" / "m 1")
    records = (home / "runs" / "a b" / "seed0" / "evaluation" / "base.jsonl").read_text()
    assert records.count("\n") == 4

    flags = ["--model=~/models/m 1", f"--workdir={tmp_path}/link/runs/a b"]
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(elsewhere)
    again = in_process(*given, *flags)
    assert again.returncode == 0, again.stderr
    assert (home / "runs" / "a b" / "seed0" / "evaluation" / "base.jsonl").read_text() == records
    assert list(elsewhere.iterdir()) == []
    shown = in_process("evaluate", "--print_config", "--workdir=~/runs/a b")
    printed = json.loads(shown.stdout)
    assert printed["inner_optimizer"] == "sgd(learning_rate=0.2)"
    assert printed | {name: config[name] for name in OPTIMIZERS} == config


@pytest.mark.parametrize(
    ("workdir", "message"),
    [
        ("lr=[0.1]", "checkpoints under a path with '['"),
        ("back\\slash", "checkpoints under a path with"),
        ("gs:/bucket", "checkpoints under a path with ':/'"),
        ("~nobody-here/run", "names no home directory"),
        ("", "an empty path"),
    ],
)
def test_invalid_workdir_prints_one_line(tmp_path, monkeypatch, workdir, message):
    monkeypatch.chdir(tmp_path)
    done = in_process("train", *SMALL, f"--workdir={workdir}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
