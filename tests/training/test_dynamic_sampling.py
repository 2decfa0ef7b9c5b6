"""Dynamic sampling replaces problems without signal, up to its bound, the same way in every run."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import settings
from experiments.launch import free_port
from mass_jax import runtime
from mass_jax.tasks.base import Verdict
from mass_jax.training import train
from mass_jax.training.dynamic_sampling import redraws, replacements
from tests import small_models
from tests.training import redraw_child

STEPS, TASKS = small_models.QUICK["steps"], small_models.QUICK["tasks_per_step"]
EXAMPLES, ATTEMPTS = small_models.RUN["num_examples"], small_models.RUN["num_attempts"]
CHILD = pathlib.Path(redraw_child.__file__)
SAMPLES = TASKS * (EXAMPLES + ATTEMPTS)


class _Judging:
    """The testbed's task, whose verifier accepts the first attempts at chosen problems and no other."""

    def __init__(self, task, solvable):
        self._task, self._solvable = task, solvable

    def __getattr__(self, name):
        return getattr(self._task, name)

    def verify(self, problems, responses):
        verdicts, seen = [], set()
        for problem in problems:
            right = self._solvable(problem) and problem.id not in seen
            seen.add(problem.id)
            verdicts.append(Verdict.RIGHT if right else Verdict.WRONG)
        return verdicts


@pytest.fixture(scope="module")
def components():
    return small_models.components(num_train_problems=24, dynamic_sampling=2, **small_models.QUICK)


@pytest.fixture
def rows_of(components):
    """Returns a function that trains with a verifier and returns the metrics."""

    def run(workdir, solvable, bound=2, components=components):
        rollouts = components.rollouts
        rollouts = rollouts.with_task(_Judging(rollouts.dialogue.task, solvable))
        config = dataclasses.replace(components.config, dynamic_sampling=bound)
        components = dataclasses.replace(components, rollouts=rollouts, config=config)
        problems = components.problems(0).train
        with jax.numpy_dtype_promotion("standard"):
            train.train_mass(components, problems, seed=0, outer="verifier", workdir=workdir, stop=runtime.Stop())
        return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]

    return run


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "step_time"} for row in rows]


def test_redraws_until_problems_have_signal(components, rows_of, tmp_path):
    problems = components.problems(0).train
    draws = train.task_order(len(problems), TASKS, seed=0)
    silent = {problems[j].id for i in range(STEPS) for j in draws(i)[:2]}
    rows = rows_of(tmp_path / "one", lambda problem: problem.id not in silent)
    for i, row in enumerate(rows):
        candidates = [problems[j] for j in redraws(len(problems), 0, i, draws(i), 1)]
        assert sum(problem.id not in silent for problem in candidates) >= 2
        assert row["right_rate"] == 0.5  # one of two attempts at every problem
        assert row["kl_to_start"] == pytest.approx(0, abs=1e-6)  # the learning rate of the first step is zero
        assert (row["samples"], row["extra_samples"]) == (2 * SAMPLES, SAMPLES)
    assert without_time(rows_of(tmp_path / "again", lambda problem: problem.id not in silent)) == without_time(rows)


def test_redraws_stop_at_bound(rows_of, tmp_path):
    for row in rows_of(tmp_path, lambda problem: False):
        assert (row["samples"], row["extra_samples"], row["right_rate"]) == (3 * SAMPLES, 2 * SAMPLES, 0)


def test_bound_of_zero_does_not_redraw(rows_of, tmp_path):
    for row in rows_of(tmp_path, lambda problem: False, bound=0):
        assert (row["samples"], row["extra_samples"]) == (SAMPLES, 0)


def test_training_stops_after_non_finite_updates(components, rows_of, tmp_path, capsys):
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), components.model.params)
    config = dataclasses.replace(components.config, max_skipped_steps=2)
    broken = dataclasses.replace(components, model=dataclasses.replace(components.model, params=broken), config=config)
    with pytest.raises(SystemExit) as caught:
        settings.guarded(lambda stop: rows_of(tmp_path, lambda problem: True, components=broken))
    assert caught.value.code == 2
    assert "not finite in 2 steps in a row" in capsys.readouterr().err.strip().splitlines()[-1]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1


def test_replacements_keep_problems_with_signal():
    draw = np.random.default_rng(0)
    for _ in range(50):
        mixed, other = draw.random((2, 8)) < 0.4
        index = replacements(mixed, other)
        assert len(set(index.tolist())) == 8
        np.testing.assert_array_equal(index[mixed], np.flatnonzero(mixed))
        signal = np.concatenate([mixed, other])[index]
        assert signal.sum() == min(8, mixed.sum() + other.sum())


def test_redraws_do_not_repeat_problems():
    first = [3, 7, 11, 15]
    drawn = [number for redraw in (1, 2, 3) for number in redraws(20, 5, 9, first, redraw)]
    assert len({*drawn, *first}) == 16
    assert drawn == [number for redraw in (1, 2, 3) for number in redraws(20, 5, 9, first, redraw)]
    assert redraws(20, 5, 9, first, 1) != redraws(20, 5, 10, first, 1)
    assert len(redraws(20, 5, 9, first, 9)) == 4


def test_one_process_redraws(tmp_path):
    redraw_child.main(str(tmp_path / "found.json"))
    check_redrawn(tmp_path / "found.json")


def test_processes_agree_on_redraws(tmp_path):
    count = 2
    address = f"127.0.0.1:{free_port()}"
    each = [[address, str(count), str(i)] for i in range(count)]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(CHILD.parents[2])}
    command = [sys.executable, str(CHILD), str(tmp_path / "found.json")]
    running = [subprocess.Popen([*command, *arguments], env=environment, stderr=subprocess.PIPE) for arguments in each]
    errors = [process.communicate(timeout=300)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0] * count, errors
    check_redrawn(tmp_path / "found.json")


def check_redrawn(path):
    """Problem 0 keeps its place; 5 and 6 replace 1 and 2, and 9 replaces 3."""
    found = json.loads(path.read_text())
    numbers = [0.0, 5.0, 6.0, 9.0]
    assert found["tasks"] == ["0", "5", "6", "9"]
    assert found["rows"] == [[i, i, f"text of {int(i)}"] for i in numbers]
    assert found["adapters"] == numbers
    assert found["redrawn"] == 2
