"""Warnings for training without signal, with the embedded model."""

import dataclasses
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax import runtime
from mass_jax.method import signal
from mass_jax.method.signal import SignalWatch, has_signal, signal_metrics
from mass_jax.tasks.base import Rejected, Verdict
from mass_jax.training import train, train_solver
from tests import small_models

STEPS, TASKS = small_models.QUICK["steps"], small_models.QUICK["tasks_per_step"]


class _Rejecting:
    """The testbed's task, rejecting every example."""

    def __init__(self, task):
        self._task = task

    def __getattr__(self, name):
        return getattr(self._task, name)

    def parse_example(self, text, problem):
        return Rejected("a test")


class _Failing(_Rejecting):
    """The testbed's task, counting every answer as incorrect."""

    def parse_example(self, text, problem):
        return self._task.parse_example(text, problem)

    def verify(self, problems, responses):
        return [Verdict.WRONG] * len(problems)


@pytest.fixture(scope="module")
def small_components():
    return small_models.components(num_train_problems=8, dynamic_sampling=1, **small_models.QUICK)


def with_task(components, kind):
    rollouts = components.rollouts
    return dataclasses.replace(components, rollouts=rollouts.with_task(kind(rollouts.dialogue.task)))


@pytest.fixture
def warnings_of(caplog):
    """Returns a function that trains and returns metrics and warnings."""

    def run(components, workdir, outer):
        caplog.clear()
        problems = components.problems(0).train
        with caplog.at_level(logging.WARNING, "absl"), jax.numpy_dtype_promotion("standard"):
            if outer == "grpo":
                train_solver.train_solver_grpo(components, problems, seed=0, workdir=workdir, stop=runtime.Stop())
            else:
                train.train_mass(components, problems, seed=0, outer=outer, workdir=workdir, stop=runtime.Stop())
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "signal" in r.getMessage()]
        return [json.loads(line) for line in lines], said

    return run


@pytest.mark.parametrize(
    ("kind", "outer", "advice"),
    [
        (_Rejecting, "gold", "every example was rejected, most often for 'a test'; raise --max_example_tokens"),
        (_Failing, "verifier", "no attempt was correct; raise --num_attempts"),
        (_Failing, "grpo", "all attempts were incorrect"),
    ],
)
def test_training_without_signal_warns(small_components, warnings_of, tmp_path, monkeypatch, kind, outer, advice):
    monkeypatch.setattr(signal, "WINDOW", 2)
    rows, said = warnings_of(with_task(small_components, kind), tmp_path, outer)
    assert len(rows) == STEPS
    for row in rows:
        assert (row["tasks_without_signal"], row["frac_reward_zero_std"], row["reward_std"]) == (TASKS, 1, 0)
    window, summary = said
    assert "no signal in the last 2 steps" in window
    assert f"{STEPS} of {STEPS} steps (100 %) had no signal" in summary
    assert advice in window
    assert advice in summary


def test_training_with_signal_does_not_warn(small_components, warnings_of, tmp_path):
    rows, said = warnings_of(small_components, tmp_path, "gold")
    assert said == []
    # With gold solutions, no problem is replaced.
    drawn = TASKS * small_models.RUN["num_examples"]
    assert {(row["samples"], row["extra_samples"]) for row in rows} == {(drawn, 0)}
    assert all(row["frac_reward_zero_std"] == row["tasks_without_signal"] / TASKS < 1 for row in rows)


def test_reopened_training_repeats_summary(small_components, warnings_of, tmp_path):
    rejecting = with_task(small_components, _Rejecting)
    rows, _ = warnings_of(rejecting, tmp_path, "gold")
    again, said = warnings_of(rejecting, tmp_path, "gold")
    assert again == rows
    assert len(said) == 1
    assert f"{STEPS} of {STEPS} steps" in said[0]


@pytest.mark.parametrize(
    ("rewards", "silent"),
    [
        ([[0.0, 0.0, 0.0], [1e-30, 0.0, 0.0]], 1),
        ([[0.1, 0.1, 0.1], [0.3, 0.3, 0.3]], 2),  # a mean of equal numbers is not always that number
        ([[1.0, 0.0, 1.0], [-1.0, 1.0, 0.0]], 0),
    ],
)
def test_signal_metrics_match_has_signal(rewards, silent):
    found = signal_metrics(jnp.array(rewards))
    assert int(found["tasks_without_signal"]) == silent
    assert float(found["frac_reward_zero_std"]) == silent / len(rewards)
    np.testing.assert_array_equal(has_signal(jnp.array(rewards)), [len(set(row)) > 1 for row in rewards])


def test_watch_warns_once_per_window(caplog):
    silent, heard = {"frac_reward_zero_std": 1.0, "kept_share": 0.5}, {"frac_reward_zero_std": 0.5}
    watch = SignalWatch("mass gold", [silent] * 7)
    with caplog.at_level(logging.INFO, "absl"):
        for row in [silent] * 14 + [heard] + [silent] * 9:
            watch.note(row)
        assert [r.getMessage()[:43] for r in caplog.records] == [
            "mass gold: no signal in the last 10 steps: ",
            "mass gold: no signal in the last 20 steps: ",
        ]
        caplog.clear()
        watch.summarize()
    assert "30 of 31 steps (97 %) had no signal" in caplog.text


def test_watch_logs_rare_silence_as_info(caplog):
    watch = SignalWatch("mass", [{"frac_reward_zero_std": 1.0}] + [{"frac_reward_zero_std": 0.0}] * 20)
    with caplog.at_level(logging.INFO, "absl"):
        watch.summarize()
    assert [record.levelno for record in caplog.records] == [logging.INFO]
