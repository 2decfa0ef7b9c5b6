"""Rewards of rejected texts rank below accepted ones, whatever the rewards of the group are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.method import rewards
from mass_jax.method.policy_gradient import group_advantages
from mass_jax.method.rejected import RejectedReward, is_accepted, is_parsed
from mass_jax.method.text import Rollout, Text

GROUPS = (
    [0.3, -0.2, 0.1, 0.0],
    [3.0, 2.0, 2.5, 4.0],
    [0.7, 0.7, 0.7, 0.7],
    [0.0, 0.0, 0.0, 0.0],
    [-5.0, -4.0, -4.5, -6.0],
    [1e4, -1e4, 3e3, 0.0],
    [1e-7, -1e-7, 0.0, 0.0],
)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("eps", [0.0, 0.01, 0.1])
def test_worst_separates_advantages(count, eps):
    rewards = jnp.array([group[:count] + [0.0] * (8 - count) for group in GROUPS])
    accepted = np.broadcast_to(np.arange(8) < count, rewards.shape)
    trained = RejectedReward("worst", eps)(rewards, accepted)
    np.testing.assert_array_equal(trained[accepted], rewards[accepted])
    advantages = np.asarray(group_advantages(trained, eps))
    gaps = advantages[:, :count].min(-1) - advantages[:, count:].max(-1)
    assert (gaps > 0.3).all()
    assert (advantages[:, :count].mean(-1) > 0.3).all()
    assert (advantages[:, count:] < 0).all()


@pytest.mark.parametrize("value", ["worst", 0.0, -1.0])
def test_group_of_one_kind_keeps_order(value):
    rewards = jnp.array([[0.3, -0.2, 0.1], [0.0, 0.0, 0.0]])
    accepted = np.array([[True] * 3, [False] * 3])
    trained = RejectedReward(value)(rewards, accepted)
    np.testing.assert_array_equal(trained[0], rewards[0])
    assert (group_advantages(trained, 0.01)[1] == 0).all()


def test_worst_keeps_distance_from_no_effect():
    """Adding a gain to the accepted examples raises them above the rejected ones."""
    accepted = np.array([[True, True, False]])
    trained = [RejectedReward()(jnp.array([[0.1, 0.2, 0.0]]) + gain, accepted)[0] for gain in (0.0, 1.0)]
    small, large = (float(group[0] - group[2]) for group in trained)
    assert large == pytest.approx(small + 1, abs=1e-6)


@pytest.mark.parametrize("value", ["zero", "worst"])
@pytest.mark.parametrize("mean", [-0.5, 0.0, 0.5])
def test_policy_gradient_on_parsing(x64, value, mean):
    r"""The push on log p(parse) has the sign of the mean accepted reward under zero and is positive under worst."""
    draw = np.random.default_rng(0)
    accepted = draw.random((400, 12)) < 0.5
    rewards = np.where(accepted, draw.normal(size=accepted.shape), 0)
    rewards += np.where(accepted, mean - (rewards.sum(-1) / np.maximum(accepted.sum(-1), 1))[:, None], 0)
    rule = RejectedReward(0.0 if value == "zero" else "worst")
    advantages_NM = np.asarray(group_advantages(rule(jnp.asarray(rewards), accepted), 0.01))
    # d log p(text) / d logit of parsing, for a policy that parses with probability 1/2
    push_N = (advantages_NM * (accepted - 0.5)).sum(-1)
    if value == "worst":
        assert (push_N[accepted.any(-1) & ~accepted.all(-1)] > 0).all()
    elif mean == 0:
        np.testing.assert_allclose(push_N, 0, atol=1e-10)
    else:
        assert np.sign(push_N.mean()) == np.sign(mean)


def test_text_that_is_cut_off_is_not_accepted():
    tokens = np.array([[[5, 6, 2], [5, 6, 7], [5, 6, 2], [2, 6, 7]]])
    target = np.array([[[0, 1, 1]] * 4], np.float32)
    parsed = target * np.array([1, 1, 0, 1], np.float32)[None, :, None]
    examples, generated = Text(tokens, target > 0, parsed), Rollout(Text(tokens, target > 0, target), target)
    assert is_parsed(examples).tolist() == [[True, True, False, True]]
    assert is_accepted(examples, generated, (2, 3)).tolist() == [[True, False, False, False]]
    assert is_accepted(examples, generated, ()).tolist() == [[True, True, False, True]]


def test_shuffled_control_moves_only_accepted_rewards():
    rewards_NM = jnp.arange(40.0).reshape(4, 10)
    accepted_NM = jax.random.bernoulli(jax.random.key(1), 0.6, (4, 10))
    moved_NM = rewards.shuffle(jax.random.key(0), rewards_NM, accepted_NM)
    np.testing.assert_array_equal(moved_NM[~accepted_NM], rewards_NM[~accepted_NM])
    for before_M, after_M, accepted_M in zip(rewards_NM, moved_NM, accepted_NM, strict=True):
        np.testing.assert_array_equal(np.sort(after_M[accepted_M]), before_M[accepted_M])
    assert (moved_NM != rewards_NM).any()
