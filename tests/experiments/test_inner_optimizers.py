"""Tests of experiments.inner_optimizers: one-line errors and settings; nothing is trained."""

import json

import pytest

from tests.commands import in_process


def run(*flags):
    return in_process("inner_optimizers", *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--settings=sgd:0.1"],
            "--workdir is missing; pass a directory, such as --workdir=runs/inner_optimizers",
        ),
        (
            ["--workdir={tmp}/a", "--settings=sgd:0.1;nadm:0.1"],
            "--settings: 'nadm:0.1': character 1: 'nadm' is unknown; did you mean 'nadam'",
        ),
        (
            ["--workdir={tmp}/a", "--settings=adam:0.1:1e-8:2.5"],
            "--settings: 'adam:0.1:1e-8:2.5' is not OPTIMIZER:RATE[:EPS_ROOT[:STEPS]]",
        ),
    ],
    ids=["workdir", "optimizer", "steps"],
)
def test_inner_optimizers_reports_invalid_flags(flags, message, tmp_path):
    done = run(*(flag.replace("{tmp}", str(tmp_path)) for flag in flags))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())


def test_inner_optimizers_prints_settings(tmp_path):
    done = run(f"--workdir={tmp_path}/a", "--print_config", "--inner_steps=5")
    assert (done.returncode, json.loads(done.stdout)["inner_steps"]) == (0, 5)
    assert not list(tmp_path.iterdir())
