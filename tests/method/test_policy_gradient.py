"""Advantages and the clipped surrogate match their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.method.policy_gradient import (
    clip_fraction,
    clipped_surrogate,
    group_advantages,
    kl_to_start,
    sampler_mismatch,
    truncated_ratios,
)


def test_advantages_are_normalized_and_shift_invariant(x64):
    rewards = np.random.default_rng(0).normal(size=(5, 12))
    advantages = group_advantages(jnp.asarray(rewards), eps=0.0)
    np.testing.assert_allclose(advantages.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(advantages.std(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(group_advantages(jnp.asarray(3 + rewards), 0.01), group_advantages(rewards, 0.01))


@pytest.mark.parametrize("eps", [0.0, 0.01])
def test_advantages_of_equal_rewards_are_zero(eps):
    assert (group_advantages(jnp.full((2, 6), 0.3), eps) == 0).all()


def test_advantage_floor_limits_noise():
    noise = 1e-4 * np.random.default_rng(1).normal(size=(1, 12))
    assert np.abs(group_advantages(jnp.asarray(noise), eps=0.01)).max() < 0.05


def surrogate_by_hand(logp, old, target, advantages, clip, level):
    rows = []
    for lp, lo, t, a in zip(logp, old, target, advantages, strict=True):
        real = t > 0
        if not real.any():
            rows.append(0.0)
            continue
        ratios = [np.exp((lp - lo)[real].sum())] if level == "sequence" else np.exp((lp - lo)[real])
        rows.append(-np.mean([min(r * a, np.clip(r, 1 - clip, 1 + clip) * a) for r in ratios]))
    return rows


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_surrogate_equals_formula_per_row(x64, level):
    rng = np.random.default_rng(2)
    logp, old = -rng.exponential(0.4, size=(2, 8, 5))
    target = (rng.random((8, 5)) < 0.7).astype(float)
    target[0] = 0
    advantages = rng.normal(size=8)
    got = clipped_surrogate(*map(jnp.asarray, (logp, old, target, advantages)), clip_ratio=0.2, level=level)
    np.testing.assert_allclose(got, surrogate_by_hand(logp, old, target, advantages, 0.2, level), rtol=1e-12)


def test_on_policy_gradient_equals_reinforce(x64):
    rng = np.random.default_rng(3)
    logp = jnp.asarray(-rng.exponential(0.4, size=(4, 5)))
    advantages, target = jnp.asarray(rng.normal(size=4)), jnp.ones((4, 5))

    def loss(x):
        return clipped_surrogate(x, jax.lax.stop_gradient(logp), target, advantages, clip_ratio=0.2).sum()

    expected = -jnp.broadcast_to(advantages[:, None], logp.shape)
    np.testing.assert_allclose(jax.grad(loss)(logp), expected, rtol=1e-12)


@pytest.mark.parametrize(("shift", "advantage", "flows"), [(1.0, 1.0, False), (1.0, -1.0, True), (-1.0, 1.0, True)])
def test_clip_stops_gradient_outside_range(shift, advantage, flows):
    old = jnp.full((1, 1), -2.0)

    def loss(x):
        return clipped_surrogate(x, old, jnp.ones((1, 1)), jnp.array([advantage]), clip_ratio=0.2).sum()

    assert bool(jax.grad(loss)(old + shift)[0, 0] != 0) is flows


def test_clip_fraction_counts_rows_outside():
    old, target = jnp.zeros((4, 2)), jnp.ones((4, 2))
    now = jnp.array([[0.0, 0.0], [0.5, 0.0], [-0.5, 0.0], [0.5, -0.5]])
    assert float(clip_fraction(now, old, target, clip_ratio=0.2)) == 0.5


def test_kl_to_start_estimates_divergence(x64):
    """The mean of the estimator over the policy's own samples is the divergence; no term is negative."""
    policy, start = (jax.nn.log_softmax(jax.random.normal(jax.random.key(k), (6,))) for k in (0, 1))
    terms = [kl_to_start(policy[None, i : i + 1], start[None, i : i + 1], jnp.ones((1, 1))) for i in range(6)]
    assert min(terms) > 0
    np.testing.assert_allclose(jnp.exp(policy) @ jnp.stack(terms), jnp.exp(policy) @ (policy - start), rtol=1e-10)


def test_kl_to_start_ignores_prompt_and_empty_rows(x64):
    policy = jnp.log(jnp.array([[0.5, 0.25, 0.5], [0.1, 0.2, 0.3]]))
    target = jnp.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    expected = (np.exp(np.log(2.0)) - np.log(2.0) - 1) / 2 / 2  # one token of two differs, one row of two counts
    found = kl_to_start(policy, policy.at[:, :2].add(np.log(2.0)), target)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_truncated_ratios_equal_formula(x64, level):
    rng = np.random.default_rng(4)
    log_ratio, target = rng.normal(size=(6, 5)), (rng.random((6, 5)) < 0.6).astype(float)
    kept = log_ratio * target
    exponent = np.broadcast_to(kept.sum(-1, keepdims=True), kept.shape) if level == "sequence" else kept
    found = truncated_ratios(jnp.asarray(log_ratio), jnp.asarray(target), 2.0, level)
    np.testing.assert_allclose(found, np.minimum(np.exp(exponent), 2.0), rtol=1e-12)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_importance_ratios_correct_the_sampler(x64, level):
    """The expected gradient over another sampler's tokens is that over the model's own, if no ratio is truncated."""
    logits, other = (jax.random.normal(jax.random.key(k), (6,)) for k in (2, 3))
    policy, sampler = jax.nn.log_softmax(logits), jax.nn.log_softmax(other)
    advantages, target = jax.random.normal(jax.random.key(4), (6,)), jnp.ones((6, 1))

    @jax.jit
    def gradient(probability, weights):
        def loss(logits):
            logprobs = jax.nn.log_softmax(logits)[:, None]
            losses = clipped_surrogate(
                logprobs, policy[:, None], target, advantages, clip_ratio=0.2, level=level, weights_BT=weights
            )
            return (probability * losses).sum()

        return jax.grad(loss)(logits)

    def corrected(cap):
        return gradient(jnp.exp(sampler), truncated_ratios((policy - sampler)[:, None], target, cap, level))

    own = gradient(jnp.exp(policy), None)
    np.testing.assert_allclose(corrected(1e3), own, rtol=1e-10)
    assert np.abs(corrected(1.0) - own).max() > 1e-3
    assert np.abs(gradient(jnp.exp(sampler), None) - own).max() > 1e-3


def test_sampler_mismatch_is_measured_per_row_or_token(x64):
    log_ratio = jnp.log(jnp.array([[9.0, 2.0, 3.0], [9.0, 0.5, 9.0]]))
    target = jnp.array([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    rows = sampler_mismatch(log_ratio, target, 2.0, "sequence")
    tokens = sampler_mismatch(log_ratio, target, 2.0, "token")
    assert (float(rows["sampler_ratio"]), float(tokens["sampler_ratio"])) == pytest.approx((6.5 / 2, 5.5 / 3))
    assert (float(rows["sampler_truncated"]), float(tokens["sampler_truncated"])) == pytest.approx((1 / 2, 1 / 3))
    terms = [x - 1 - np.log(x) for x in (2, 3, 0.5)]
    assert float(rows["sampler_kl"]) == pytest.approx((sum(terms[:2]) / 2 + terms[2]) / 2)
    assert float(tokens["sampler_kl"]) == float(rows["sampler_kl"])
