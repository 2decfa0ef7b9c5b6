"""Rewards match their definitions on a smooth inner loop, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.method import rewards
from mass_jax.method.rejected import RejectedReward

N, M, K = 2, 5, 3
KEPT = np.arange(M)[None] < np.array([[M], [3]])


@pytest.fixture
def problem(x64):
    return _problem()


@functools.cache  # one trace and one compilation for all tests
def _problem():
    """Logistic regression adapted by SGD; the last two examples of the second problem are masked."""
    draw = np.random.default_rng(0)
    inputs, labels = draw.normal(size=(N, M, 3)), draw.choice([-1.0, 1.0], size=(N, M))
    target = jnp.asarray(draw.normal(size=(N, 3)))

    def example_losses(params, batch):
        x, y, kept = batch
        return kept * jnp.log1p(jnp.exp(-y * (x @ params)))

    def outer_loss(params, target):
        return jnp.log1p(jnp.exp(-params @ target))

    batch = (jnp.asarray(inputs), jnp.asarray(labels), jnp.asarray(KEPT * 1.0))
    settings = {"optimizer": optax.sgd(0.5), "num_steps": K}

    def one(scores_M, batch, target):
        return mg.meta_gradient(
            mg.WeightedLoss(example_losses),
            outer_loss,
            jnp.zeros(3),
            scores_M,
            batch,
            target,
            adjoint=mg.WeightedMixedMode(),
            **settings,
        )

    @jax.jit
    def value(scores_NM):
        return jax.vmap(one)(scores_NM, batch, target).value

    @jax.jit
    def gradient(scores_NM):
        return jax.vmap(one)(scores_NM, batch, target).meta

    return rewards.ScoreLoss(value, gradient), jnp.asarray(draw.uniform(0.2, 0.9, size=(N, M)))


@functools.cache
def _compiled(reward, loss):
    return jax.jit(lambda s: reward(loss, s, loss.gradient(s), KEPT))


def rewards_of(problem, reward):
    loss, scores_NM = problem
    return _compiled(reward, loss)(scores_NM)


def gain(problem):
    loss, scores_NM = problem
    return loss.value(jnp.zeros_like(scores_NM)) - loss.value(scores_NM)


def test_marginal_is_negative_gradient(problem):
    loss, scores_NM = problem
    np.testing.assert_allclose(rewards_of(problem, rewards.Marginal()), -loss.gradient(scores_NM), rtol=1e-12)


def test_path_sums_to_gain(problem):
    errors = [np.abs(rewards_of(problem, rewards.Path(points)).sum(-1) - gain(problem)).max() for points in (1, 3, 12)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 1e-3
    assert errors[2] < 1e-6


def test_leave_one_out_equals_adapting_without_example(problem):
    loss, scores_NM = problem
    found = rewards_of(problem, rewards.LeaveOneOut())
    for m in range(M):
        without = loss.value(scores_NM.at[:, m].set(0)) - loss.value(scores_NM)
        np.testing.assert_allclose(found[:, m], without, rtol=1e-10, atol=1e-14)


def test_gain_adds_gain_to_parsed_examples(problem):
    loss, scores_NM = problem
    expected = np.where(KEPT, gain(problem)[:, None] - loss.gradient(scores_NM), 0)
    np.testing.assert_allclose(rewards_of(problem, rewards.Gain()), expected, rtol=1e-12)


@pytest.mark.parametrize("name", rewards.REWARDS)
def test_rejected_examples_have_no_reward(problem, name):
    assert (rewards_of(problem, rewards.make_reward(name, 3))[~KEPT] == 0).all()


@pytest.mark.parametrize("value", [0.0, "worst"])
def test_gain_raises_parsed_above_rejected(problem, value):
    """The gain, which all parsed examples share, survives the normalization within the group."""
    rule = RejectedReward(value)
    raised = []
    for reward in (rewards.Marginal(), rewards.Gain()):
        trained = np.asarray(rule(rewards_of(problem, reward), KEPT))
        raised.append(trained[1, :3].min() - trained[1, 3:].max())
    assert gain(problem)[1] > 0
    assert raised[1] > raised[0] + 0.5 * float(gain(problem)[1])
