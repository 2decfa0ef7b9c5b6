"""Runs in unusual locations: other working directories, links, spaces, `~`; rejected ones write nothing."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from mass_jax.training.components import model_directory

ROOT = pathlib.Path(__file__).parents[2]
SMALL = "--preset=tiny --num_test_examples=2 --eval_batch=2 --num_eval_problems=2 --num_train_problems=4".split()


@pytest.fixture
def run(tmp_path_factory):
    """Runs a command in a directory; its processes share a compilation cache, which does not affect results."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def call(module, *arguments, cwd, **changes):
        command = [sys.executable, "-m", f"experiments.{module}", *arguments]
        given = environment | {name: str(value) for name, value in changes.items()}
        return subprocess.run(command, cwd=cwd, env=given, capture_output=True, text=True, timeout=900, check=False)

    return call


def test_run_resumes_from_another_directory(run, tmp_path):
    """Starts with relative paths in one directory and resumes through a link and `~` from another."""
    home, elsewhere = tmp_path / "home ü", tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(model_directory("tiny"), home / "models" / "m 1")
    (tmp_path / "link").symlink_to(home)
    given = ["evaluate", *SMALL, "--methods=base"]
    done = run(*given, "--model=models/m 1", "--workdir=runs/a b", cwd=home)
    assert done.returncode == 0, done.stderr
    config = json.loads((home / "runs" / "a b" / "config.json").read_text())
    assert config["model"] == str(home / "models" / "m 1")
    records = (home / "runs" / "a b" / "seed0" / "evaluation" / "base.jsonl").read_text()
    assert records.count("\n") == 4

    again = run(*given, "--model=~/models/m 1", f"--workdir={tmp_path}/link/runs/a b", cwd=elsewhere, HOME=home)
    assert again.returncode == 0, again.stderr
    assert (home / "runs" / "a b" / "seed0" / "evaluation" / "base.jsonl").read_text() == records
    assert list(elsewhere.iterdir()) == []
    shown = run("evaluate", "--print_config", "--workdir=~/runs/a b", cwd=elsewhere, HOME=home)
    assert json.loads(shown.stdout) == config


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
def test_invalid_workdir_prints_one_line(run, tmp_path, workdir, message):
    done = run("train", *SMALL, f"--workdir={workdir}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
