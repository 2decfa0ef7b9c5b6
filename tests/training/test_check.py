"""The check of the reward signal at the first training steps, with the embedded model."""

import functools
import logging

import jax
import numpy as np
import pytest

from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.method import meta_step, score
from mass_jax.method.text import Text
from mass_jax.runtime.metrics import read_metrics
from mass_jax.training import check, learners, train
from tests.small_models import components

SIZES = {"steps": 2, "tasks_per_step": 4, "num_examples": 4}
SIGN_LIKE = {"inner_optimizer": "adam", "inner_lr": 0.03, "inner_eps_root": "1e-8"}
SIGN_LIKE |= {"lora_targets": ("q_proj",), "inner_steps": 1}


def training(**changes):
    """Returns a check of the reward of the embedded model before its first call."""
    made = components(outer="gold", **changes)
    learner = learners.mass_learner(made.config, made.rollouts.loop, made.scorer, "gold")
    return check.SignalCheck(made, learner, "mass gold")


def skipped(caplog, step, **changes):
    """Returns the lines that the check of a step logs without measuring anything."""
    with caplog.at_level(logging.INFO):
        assert training(**changes).before(step, None, None, None, None) is None
    return [record.getMessage() for record in caplog.records]


def test_too_few_examples_are_named_once(caplog):
    checked = training(num_examples=3, tasks_per_step=8)
    with caplog.at_level(logging.INFO):
        assert checked.before(0, None, None, None, None) is checked.before(1, None, None, None, None) is None
    assert [record.getMessage() for record in caplog.records] == [
        "mass gold: the reward is not checked: --num_examples=3 is less than 4"
    ]


def test_too_few_problems_in_all_steps_are_named(caplog):
    [line] = skipped(caplog, 0, num_examples=4)
    assert line == "mass gold: the reward is not checked: --steps=3 leaves 6 problems, less than 8"


@pytest.mark.parametrize("changes", [{"num_examples": 2, "tasks_per_step": 8}, {"num_examples": 5}])
def test_impossible_check_stops_on_request(changes):
    with pytest.raises(UserError, match=r"the reward cannot be checked: .*; raise it or pass --on_weak_signal=warn"):
        training(on_weak_signal="error", **changes).before(0, None, None, None, None)


@pytest.mark.parametrize("step", [3, 40])
def test_resumed_training_is_not_checked(caplog, step):
    [line] = skipped(caplog, step, num_examples=4, tasks_per_step=3, on_weak_signal="error")
    assert line == f"mass gold: the reward is not checked, since training resumes at step {step}"


def test_ignored_signal_is_not_mentioned(caplog):
    assert skipped(caplog, 0, on_weak_signal="ignore", num_examples=4, tasks_per_step=8) == []


def batch_of(made, seed=0, rejected=()):
    """Returns a batch whose examples are gold solutions of other problems; those of `rejected` are masked."""
    config, rollouts, feed = made.config, made.rollouts, made.rollouts.feed
    count, examples = config.tasks_per_step, config.num_examples
    problems = made.problems(0).train
    picked = np.random.default_rng(seed).integers(len(problems), size=count * examples)
    rows = rollouts.dialogue.gold([problems[number] for number in picked]).text
    text = jax.tree.map(lambda leaf: leaf.reshape(count, examples, leaf.shape[-1]).copy(), rows)
    text.target_BT[:, list(rejected)] = 0
    solutions = rollouts.dialogue.gold(problems[:count])
    adapters = feed.place(rollouts.loop.init_adapters(jax.random.split(jax.random.key(seed), count)))
    text, solutions, right_NJ = feed.put((text, solutions, np.ones((count, 1), np.float32)), count)
    return meta_step.TaskBatch(text, text, solutions, solutions, right_NJ, adapters)


def state_of(checked):
    weights = check.start_weights(checked.components)
    state = meta_step.MetaState(np.int32(0), weights.policy, scorer_of(checked.learner.scorer), None, None)
    return checked.components.rollouts.feed.place(state), weights.base


@functools.cache
def scorer_of(trunk):
    return score.init(jax.random.key(1), trunk)


def output_of(rewards_NM):
    return meta_step.StepOutput({}, None, jax.numpy.asarray(rewards_NM, "float32"))


def measured_of(effects_NM, scores_NM, parsed_NM):
    """Returns outer losses of a step in which the examples have given effects."""
    target = np.repeat(np.asarray(parsed_NM)[..., None], 3, -1).astype(np.float32)
    batch = meta_step.TaskBatch(Text(target, target, target), None, None, None, None, None)
    effects = np.asarray(effects_NM, np.float32)
    zeros = np.zeros(len(effects), np.float32)
    losses = (zeros, zeros + 1, *effects.T)
    return check.Measured((), batch, jax.numpy.asarray(scores_NM), tuple(map(jax.numpy.asarray, losses)))


@pytest.mark.parametrize(("reward", "correlation"), [("path", 1.0), ("leave_one_out", 1.0), ("marginal", -1.0)])
def test_total_rewards_are_compared_with_total_effects(reward, correlation):
    """Divided by the scores, these effects have the opposite order."""
    checked = training(reward=reward, on_weak_signal="ignore", signal_every=3)
    effects = np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    scores = np.float32(effects**2 / 16)
    metrics = checked.after(6, measured_of(effects, scores, effects > 0), output_of(effects))
    assert metrics["signal/leave_one_out"] == pytest.approx(correlation)


def test_rejected_texts_do_not_count():
    """Their rewards and effects are 0, which would agree."""
    checked = training(on_weak_signal="ignore", signal_every=1)
    effects = np.array([[3.0, 1.0, 2.0, 0.0, 0.0, 0.0], [2.0, 3.0, 1.0, 0.0, 0.0, 0.0]])
    metrics = checked.after(
        5, measured_of(effects, np.ones_like(effects, np.float32), effects > 0), output_of(-effects)
    )
    assert metrics["signal/leave_one_out"] == pytest.approx(-1)
    assert metrics["signal/sign"] == 0


@pytest.mark.parametrize("start", [0, 1])
def test_first_steps_are_judged_together(caplog, start):
    """Training that resumes between them starts the check again."""
    checked = training(**SIGN_LIKE, **SIZES | {"steps": 3})
    state, base = state_of(checked)
    rewards = np.random.default_rng(0).normal(size=(4, 4))
    for step in (start, start + 1, start + 2):
        # Promotes types as training does, which then shares the compiled programs.
        with caplog.at_level(logging.INFO), jax.numpy_dtype_promotion("standard"):
            measured = checked.before(step, state, base, (), batch_of(checked.components, step, rejected=[2]))
            assert checked.after(step, measured, output_of(rewards - rewards.mean(-1, keepdims=True))) == {}
        lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(lines) == (0 if step == start else 3)
    assert measured is None
    assert "rewards of 8 problems" in lines[0]
    assert "; change --inner_eps_root or --inner_" in lines[1]
    assert lines[1].endswith(", K=1 is not weak")
    assert lines[2].count("eps_root") == 3


def test_rate_that_breaks_the_model_is_named(caplog):
    """No attempt is right, so that other settings are compared on gold solutions, with smaller rates first."""
    made = components(outer="verifier", **SIGN_LIKE | {"inner_lr": 3.0}, **SIZES | {"tasks_per_step": 8})
    checked = check.SignalCheck(
        made, learners.mass_learner(made.config, made.rollouts.loop, made.scorer, "verifier"), "mass"
    )
    state, base = state_of(checked)
    batch = batch_of(made)._replace(right_NJ=made.rollouts.feed.put(np.zeros((8, 1), np.float32), 8))
    with caplog.at_level(logging.INFO), jax.numpy_dtype_promotion("standard"):
        measured = checked.before(0, state, base, made.problems(0).train[:8], batch)
        checked.after(0, measured, output_of(np.zeros((8, 4))))
    first, second, third = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert "correlation with leave-one-out none, zero-sum index none, problems with signal 0.00" in first
    assert "; change a smaller --inner_lr or --dynamic_sampling or --num_attempts or --outer=gold" in second
    assert third.startswith("mass: on the same problems with gold solutions, adam 0.75, eps_root 1e-08, K=1: corr")
    assert "adam 0.1875, eps_root" in third
    assert "none" not in third
    assert "nan" not in third


def test_logged_steps_measure_eight_problems():
    checked = training(tasks_per_step=12, num_examples=4, on_weak_signal="ignore", signal_every=4)
    state, base = state_of(checked)
    batch = batch_of(checked.components)
    assert checked.before(3, state, base, (), batch) is None
    measured = checked.before(4, state, base, (), batch)
    assert measured.scores_NM.shape == (8, 4)
    assert {losses.shape for losses in measured.losses_EN} == {(8,)}
    effects = np.stack(measured.losses_EN[2:], 1) - np.asarray(measured.losses_EN[0])[:, None]
    rewards = np.concatenate([effects / np.asarray(measured.scores_NM), np.zeros((4, 4))])
    assert checked.after(4, measured, output_of(rewards))["signal/leave_one_out"] == pytest.approx(1)


def test_start_weights_copy_no_parameters():
    made = components(generator="full")
    assert check.start_weights(made).policy is made.model.params


def test_training_with_sign_like_adam_stops_on_request(tmp_path):
    made = components(**SIZES, **SIGN_LIKE, on_weak_signal="error", outer="gold")
    problems = made.problems(0).train
    stop = runtime.Stop()
    with jax.numpy_dtype_promotion("standard"), pytest.raises(UserError, match=r"weak reward: .*zero-sum") as caught:
        train.train_mass(made, problems, seed=0, outer="gold", workdir=tmp_path, stop=stop)
    assert "--inner_eps_root" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(list(read_metrics(tmp_path / "metrics.jsonl"))) == 1  # the second step completes the check
