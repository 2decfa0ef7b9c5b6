"""The quick start in miniature: trains, evaluates and reports with the packages of the `train` extra only."""

import json
import os

import pytest

from mass_jax import lazy
from tests.commands import as_process

SMALL = (
    "--preset=tiny --methods=base,mass --steps=2 --warmup_steps=1 --num_train_problems=8 --num_eval_problems=4 "
    "--tasks_per_step=2 --num_examples=2 --num_test_examples=2 --num_attempts=2 --eval_batch=4"
).split()


@pytest.mark.smoke
def test_train_writes_report_without_math_extra(environment, tmp_path):
    missing = sorted(name for name, (_, extra) in lazy.OPTIONAL.items() if extra != "train")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({missing!r}))\n")
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"}
    done = as_process("train", *SMALL, f"--workdir={tmp_path / 'run'}", env=environment | path)
    assert done.returncode == 0, done.stderr
    report = tmp_path / "run" / "report"
    assert done.stdout.strip() == (report / "table1.md").read_text(encoding="utf-8").strip()
    assert json.loads((report / "table1.json").read_text(encoding="utf-8"))
    assert (report / "examples.html").stat().st_size > 0
