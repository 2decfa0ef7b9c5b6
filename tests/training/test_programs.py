"""Programs that are compiled ahead of time are those that a run calls."""

import dataclasses
import logging
import re

import jax
import numpy as np
import pytest

from mass_jax import runtime
from mass_jax.evaluation import study
from mass_jax.rows import TRAINING_RUNS
from mass_jax.training import compiling, programs, samplers, train, train_solver
from tests.small_models import components

# No other test has texts of these lengths, whose programs would not be lowered again.
SMALL = {"max_answer_tokens": 5, "max_example_tokens": 13, "inner_steps": 1, "adjoint": "first_order", "drift_every": 0}
SMALL |= {"lora_targets": ("q_proj",)}
STEPS = {"meta_step_jit": train, "grpo_step_jit": train_solver, "sft_step_jit": train_solver}
JITTED = (*STEPS, "adapt", "sample", "scores")


class Reached(Exception):
    """Raised in place of the first update."""


@pytest.fixture(autouse=True)
def fresh(monkeypatch, no_compilation_cache):
    """Forgets what earlier tests announced and compiled."""
    monkeypatch.setattr(compiling, "_announced", set())


def shapes_of(made):
    rollouts = made.rollouts
    return programs.Shapes(made.config, rollouts.loop, made.scorer, rollouts.feed)


def lowered(caplog):
    """Names of the functions that this thread lowered, of those that programs call."""
    found = re.findall(r"^Compiling jit\((\w+)\)", "\n".join(caplog.messages), re.MULTILINE)
    return [name for name in found if name in JITTED]


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        ("mass", {"generator": "lora", "learn": "inner_lr", "kl_coef": 0.1, "tasks_at_a_time": 1}),
        ("solver_grpo", {}),
        ("solver_sft", {}),
    ],
)
def test_training_calls_programs_with_arguments_of_these_shapes(run, changes, tmp_path, monkeypatch, caplog):
    """Lowers the programs ahead of time, and trains up to the first update, which it only lowers."""
    made = components(**SMALL, **changes)
    known = programs.training_programs(shapes_of(made), TRAINING_RUNS[run])

    def lower_only(step):
        def lower(*args):
            step.lower(*args)
            raise Reached

        return lower

    for name, module in STEPS.items():
        monkeypatch.setattr(module, name, lower_only(getattr(module, name)))
    with runtime.use_mesh(made.rollouts.feed.mesh), jax.numpy_dtype_promotion("standard"), jax.log_compiles():
        for program in known:
            program.trace().lower()
        assert len(lowered(caplog)) == len(known)
        caplog.clear()
        with caplog.at_level(logging.INFO, "absl"), pytest.raises(Reached):
            study.train_run(made, run, made.problems(0), 0, tmp_path, runtime.Stop())
    assert lowered(caplog) == []
    called = re.findall(r"^compiling (.+) \.\.\.$", "\n".join(caplog.messages), re.MULTILINE)
    assert [name for name in called if name != "log-probabilities before training"] == [each.name for each in known]


def test_evaluation_calls_programs_that_a_thread_compiled(tmp_path, caplog):
    made = components(**SMALL)
    with (
        caplog.at_level(logging.INFO, "absl"),
        jax.log_compiles(),
        runtime.use_mesh(made.rollouts.feed.mesh),
        programs.compiling_ahead(made, ["tt_ss"], 1),
    ):
        study.evaluate_rows(made, ["tt_ss"], 0, tmp_path, runtime.Stop())
    assert lowered(caplog) == []  # by this thread
    compiled = [each.getMessage() for each in caplog.records if each.threadName.startswith("compile")]
    names = [program.name for program in programs.evaluation_programs(shapes_of(made), ["tt_ss"])]
    assert [text.partition(" in ")[0] for text in compiled] == [f"compiled {name}" for name in names]


def test_rows_share_programs():
    shapes = shapes_of(components(**SMALL))
    names = [program.name for program in programs.run_programs(shapes, ["base", "tt_ss", "mass", "mass_gold"])]
    assert len({*names}) == len(names)
    assert [name for name in names if "meta-step" in name] == [
        "the meta-step of mass verifier",
        "the meta-step of mass gold",
    ]
    assert len(programs.run_programs(shapes, ["base"])) == 1


def test_gold_batch_has_shapes_of_gold_solutions():
    made = components(**SMALL)
    solutions = made.rollouts.dialogue.gold(made.problems(0).train[:2])
    found = shapes_of(made).batch(gold=True).solutions
    assert jax.tree.map(lambda leaf: leaf.shape, found) == jax.tree.map(np.shape, solutions)


def external(made):
    return dataclasses.replace(made.rollouts, sampler=samplers.External(lambda *_, **__: [], "own"))


def sharded(made):
    mesh = runtime.make_mesh("data:2", jax.devices()[:2])
    return dataclasses.replace(made.rollouts, feed=runtime.Feed(mesh))


@pytest.mark.parametrize(
    ("changes", "rollouts", "threads"),
    [
        ({}, lambda made: made.rollouts, 0),
        ({}, external, 2),
        ({}, sharded, 2),
        ({"policy_optimizer": "optax:adam(0.1)"}, lambda made: made.rollouts, 2),
    ],
    ids=["no threads", "sampler", "devices", "own optimizer"],
)
def test_other_runs_compile_when_called(changes, rollouts, threads, caplog):
    made = components(**SMALL)
    config = dataclasses.replace(made.config, **changes)
    made = dataclasses.replace(made, config=config, rollouts=rollouts(made))
    with caplog.at_level(logging.INFO, "absl"), programs.compiling_ahead(made, ["mass"], threads):
        assert caplog.messages == []
