"""End-to-end tests of experiments.train with real processes, signals and files.

The run without interruption is the quick start in miniature, with the packages of the `train` extra only.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import pytest

from mass_jax import lazy
from tests.commands import as_process, command, in_process

# As many problems per step as per evaluation batch, so that both use the same sampling program.
SMALL = (
    "--preset=tiny --steps=8 --warmup_steps=1 --tasks_per_step=4 --num_examples=2 --num_test_examples=2 --eval_batch=4 "
    "--inner_steps=1 --num_attempts=2 --num_train_problems=8 --num_eval_problems=4 --checkpoint_every=4 "
    "--methods=base,tt_ss,mass --learn=inner_lr --policy_optimizer=adamw(weight_decay=0.01) --lora_targets=q_proj"
).split()
# The example of docs/guides/inner_optimizer.md, an optimizer of the user's own code.
SMALL.append(f"--inner_optimizer={pathlib.Path(__file__).with_name('own_optimizer.py')}:make")


def test_own_optimizer_is_documented():
    root = pathlib.Path(__file__).parents[2]
    code = (root / "tests" / "e2e" / "own_optimizer.py").read_text(encoding="utf-8")
    assert f"```python\n{code}```" in (root / "docs" / "guides" / "inner_optimizer.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def finished(environment, tmp_path_factory):
    """Workdir and output of a run without interruption, in which the packages of all other extras are missing."""
    workdir, hooks = tmp_path_factory.mktemp("uninterrupted"), tmp_path_factory.mktemp("hooks")
    # h11 of the extra `serve` is present: orbax and huggingface_hub load it through httpx.
    missing = sorted(name for name, (_, extra) in lazy.OPTIONAL.items() if extra != "train" and name != "h11")
    (hooks / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({missing!r}))\n")
    path = {"PYTHONPATH": f"{hooks}{os.pathsep}{environment['PYTHONPATH']}"}
    done = as_process("train", *SMALL, f"--workdir={workdir}", env=environment | path)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


@pytest.fixture(scope="module")
def uninterrupted(finished):
    return finished[0]


def without_times(path):
    def rows(file):
        lines = file.read_text(encoding="utf-8").splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "step_time")} for line in lines]

    return {file.name: rows(file) for file in sorted(path.rglob("*.jsonl"))}


def table_of(workdir):
    table = json.loads((workdir / "report" / "table1.json").read_text())
    for row in (table["methods"] | table["references"]).values():
        del row["cost"]["seconds_per_question"]
        if row["training"]:
            del row["training"]["seconds"]
    return table


def stop_after(lines, number, flags, environment):
    """Starts the command, sends a signal once it has opened its log and it holds `lines` steps.

    Lines of an earlier run do not count before this one has taken them over, when its signal handlers are in place.

    Returns:
        Exit status and stderr.
    """
    workdir = pathlib.Path(next(flag for flag in flags if flag.startswith("--workdir=")).split("=", 1)[1])
    metrics = workdir / "seed0" / "mass" / "metrics.jsonl"
    before = metrics.stat().st_ino if metrics.exists() else None
    with subprocess.Popen(command("train", *flags), env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while not (metrics.exists() and metrics.stat().st_ino != before and metrics.read_text().count("\n") >= lines):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def damage(checkpoint):
    """Changes bytes of the largest file of a checkpoint."""
    largest = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data, draw = bytearray(largest.read_bytes()), random.Random(0)
    for _ in range(40):
        data[draw.randrange(len(data))] ^= 0xFF
    largest.write_bytes(data)


def test_train_resumes_to_identical_results(uninterrupted, environment, tmp_path):
    """Falls back from a damaged checkpoint, is stopped in the steps after it, killed in the next ones, and resumes."""
    workdir = pathlib.Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    newest = workdir / "seed0" / "mass" / "checkpoints" / "8"
    damage(newest)
    (workdir / "seed0" / "evaluation" / "mass.jsonl").unlink()
    shutil.rmtree(workdir / "report")
    flags = [*SMALL, f"--workdir={workdir}"]
    status, errors = stop_after(5, signal.SIGTERM, flags, environment)
    assert f"checkpoint {newest} cannot be used" in errors
    assert status in (128 + signal.SIGTERM, 0)
    if status:
        assert "rerun the same command to resume" in errors
        assert "Traceback" not in errors
    assert "stopping at the next safe point" in errors
    metrics = workdir / "seed0" / "mass" / "metrics.jsonl"
    status, _ = stop_after(metrics.read_text().count("\n") + 1, signal.SIGKILL, flags, environment)
    assert status == -signal.SIGKILL
    kept = metrics.read_text(encoding="utf-8")
    done = kept.count("\n")
    unsaved = f'{{"step": {done}, "reward": 0.5}}\n{{"step": {done + 1}, "rew'
    metrics.write_text(kept + unsaved, encoding="utf-8")  # as if killed two steps later, before the next checkpoint
    done = as_process("train", *flags, env=environment)
    assert done.returncode == 0, done.stderr
    assert without_times(workdir) == without_times(uninterrupted)
    assert table_of(workdir) == table_of(uninterrupted)


@pytest.mark.smoke
def test_train_writes_report_without_math_extra(finished):
    workdir, shown = finished
    report = workdir / "report"
    assert "| MASS |" in shown
    assert shown.strip() == (report / "table1.md").read_text(encoding="utf-8").strip()
    assert json.loads((report / "table1.json").read_text(encoding="utf-8"))
    assert (report / "examples.html").stat().st_size > 0


def test_train_metrics_describe_completions(uninterrupted):
    for step in map(json.loads, (uninterrupted / "seed0" / "mass" / "metrics.jsonl").read_text().splitlines()):
        assert 0 <= step["examples_cut_off"] < 1
        assert 1 <= step["examples_length_min"] <= step["examples_length"] <= step["examples_length_max"]
        assert 0 < step["examples_entropy"] < 6  # log of the size of the vocabulary


def test_train_writes_complete_report(uninterrupted):
    written = {path.name for path in (uninterrupted / "report").iterdir()}
    assert written == {
        "table1.json",
        "table1.md",
        "accuracy.png",
        "accuracy.svg",
        "training.png",
        "training.svg",
        "examples.html",
    }


def test_train_rejects_workdir_with_other_settings(uninterrupted):
    done = in_process("train", *SMALL, "--gamma=0.7", f"--workdir={uninterrupted}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "gamma" in done.stderr
    assert "choose another --workdir" in done.stderr


def test_train_rejecting_prompts_leaves_workdir_empty(tmp_path):
    done = in_process("train", *SMALL, "--tasks_per_step=8", "--max_prompt_tokens=4", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "raise --max_prompt_tokens to 6" in done.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_tiny_preset_orders_methods(tmp_path):
    """Paired differences of the whole command; takes about 8 minutes on 2 cores."""
    done = subprocess.run(command("train", "--preset=tiny", f"--workdir={tmp_path}"), timeout=3600, check=False)
    assert done.returncode == 0
    paired = json.loads((tmp_path / "report" / "table1.json").read_text())["paired"]["unseen"]
    found = {(row["from"], row["to"]): row for row in paired}
    assert found["base", "tt_ss"]["difference"] > 0
    assert found["tt_ss", "solver_grpo"]["ci95"][0] > 0
    assert found["solver_grpo", "mass"]["ci95"][0] > 0
