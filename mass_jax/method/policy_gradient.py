"""Policy gradients of the generator and the solver: group advantages and the clipped surrogate of GRPO.

Shape suffixes: N problems, M samples per problem (one group), B rows, T tokens.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

RatioLevel = Literal["sequence", "token"]


def group_advantages(rewards_NM: jax.Array, eps: float) -> jax.Array:
    r"""Rewards normalized within each problem's group of samples.

    .. math:: A_i = (r_i - \mathrm{mean}_j r_j) / (\mathrm{std}_j r_j + \epsilon)

    Args:
        rewards_NM: rewards; meta-gradient rewards are in nats.
        eps: floor of the standard deviation. Besides avoiding division by zero, it keeps noise small when the rewards
            of a group are nearly equal.

    Returns:
        advantages_NM, exactly 0 for a group of equal rewards.

    Source: the paper, section 2.3 ("GRPO-style advantages"); Shao et al. 2024, DeepSeekMath.

    >>> group_advantages(jnp.array([[1.0, 3.0]]), eps=0.0)
    Array([[-1.,  1.]], dtype=float32)
    """
    centered_NM = rewards_NM - rewards_NM.mean(-1, keepdims=True)
    # The maximum avoids 0/0 for a group of equal rewards when eps is 0.
    scale_N1 = jnp.maximum(rewards_NM.std(-1, keepdims=True) + eps, jnp.finfo(rewards_NM.dtype).tiny)
    return centered_NM / scale_N1


def clipped_surrogate(
    logprobs_BT: jax.Array,
    old_logprobs_BT: jax.Array,
    target_BT: jax.Array,
    advantages_B: jax.Array,
    *,
    clip_ratio: float,
    level: RatioLevel = "sequence",
    weights_BT: jax.Array | None = None,
) -> jax.Array:
    r"""Clipped policy-gradient loss of each sampled row.

    .. math:: -w_i \min(\rho_i A_i, \mathrm{clip}(\rho_i, 1-\epsilon, 1+\epsilon) A_i), \quad
        \rho_i = \pi_\theta(y_i|x_i) / \pi_{old}(y_i|x_i)

    Args:
        logprobs_BT: log pi_theta of each token, in nats.
        old_logprobs_BT: log pi_old of each token at sampling time, in nats.
        target_BT: 1 on generated tokens, 0 on prompt tokens and padding.
        advantages_B: one advantage per row.
        clip_ratio: epsilon.
        level: "sequence" uses the ratio of whole completions, as the paper does; "token" uses one ratio per token and
            averages over the row's tokens.
        weights_BT: importance weights w from `truncated_ratios` at the same level, treated as constants; None stands
            for 1.

    Returns:
        losses_B, 0 for a row without generated tokens.

    Source: the paper, L_aux of section 2.3.

    >>> logp = jnp.log(jnp.array([[0.5, 0.5]]))
    >>> clipped_surrogate(logp, logp, jnp.ones((1, 2)), jnp.array([2.0]), clip_ratio=0.2)
    Array([-2.], dtype=float32)
    """
    log_ratio_BT = (logprobs_BT - old_logprobs_BT) * target_BT
    count_B = target_BT.sum(-1)
    if level == "sequence":
        losses_B = _clipped(jnp.exp(log_ratio_BT.sum(-1)), advantages_B, clip_ratio)
        if weights_BT is not None:  # all of a row are equal
            losses_B *= weights_BT[:, 0]
        return jnp.where(count_B > 0, losses_B, 0)
    losses_BT = _clipped(jnp.exp(log_ratio_BT), advantages_B[:, None], clip_ratio)
    if weights_BT is not None:
        losses_BT *= weights_BT
    return (losses_BT * target_BT).sum(-1) / jnp.maximum(count_B, 1)


def _clipped(ratio: jax.Array, advantages: jax.Array, clip_ratio: float) -> jax.Array:
    """Returns the clipped loss of each ratio."""
    clipped = jnp.clip(ratio, 1 - clip_ratio, 1 + clip_ratio)
    return -jnp.minimum(ratio * advantages, clipped * advantages)


def truncated_ratios(log_ratio_BT: jax.Array, target_BT: jax.Array, cap: float, level: RatioLevel) -> jax.Array:
    r"""Truncated importance ratios of the model over another sampler that drew the tokens.

    .. math:: w = \min(\pi_{old} / \mu, C)

    Args:
        log_ratio_BT: log pi_old - log mu of each token, where mu is the sampler's policy.
        target_BT: 1 on generated tokens, 0 on prompt tokens and padding.
        cap: C, which bounds the variance.
        level: "sequence" gives every token the ratio of its row, "token" its own.

    Returns:
        weights_BT.

    Source: Yao et al. 2025, Your efficient RL framework secretly brings you off-policy RL training (truncated
    importance sampling); Ionides 2008, Truncated importance sampling.

    >>> truncated_ratios(jnp.log(jnp.array([[0.5, 8.0]])), jnp.ones((1, 2)), 2.0, "sequence")
    Array([[2., 2.]], dtype=float32)
    """
    log_ratio_BT = log_ratio_BT * target_BT
    if level == "sequence":
        log_ratio_BT = jnp.broadcast_to(log_ratio_BT.sum(-1, keepdims=True), log_ratio_BT.shape)
    return jnp.exp(jnp.minimum(log_ratio_BT, math.log(cap)))


def sampler_mismatch(
    log_ratio_BT: jax.Array, target_BT: jax.Array, cap: float, level: RatioLevel
) -> dict[str, jax.Array]:
    """Returns how far the model is from the sampler that drew its completions.

    Args:
        log_ratio_BT, target_BT, cap, level: see `truncated_ratios`; every row has a generated token.

    Returns:
        Scalars: "sampler_kl", the estimated KL divergence KL(mu || pi_old) in nats per token; "sampler_ratio", the mean
        importance ratio, whose expectation is 1; "sampler_truncated", the share of ratios above the cap.

    >>> found = sampler_mismatch(jnp.log(jnp.array([[0.5, 8.0]])), jnp.ones((1, 2)), 2.0, "token")
    >>> {name: round(float(value), 3) for name, value in found.items()}
    {'sampler_kl': 2.557, 'sampler_ratio': 4.25, 'sampler_truncated': 0.5}
    """
    log_ratio_BT = log_ratio_BT * target_BT
    kl = kl_to_start(jnp.zeros_like(log_ratio_BT), log_ratio_BT, target_BT)
    if level == "sequence":
        log_ratio_BT, target_BT = log_ratio_BT.sum(-1, keepdims=True), target_BT.max(-1, keepdims=True)
    count = target_BT.sum()
    above = jnp.where(log_ratio_BT > math.log(cap), target_BT, 0)
    return {
        "sampler_kl": kl,
        "sampler_ratio": (jnp.exp(log_ratio_BT) * target_BT).sum() / count,
        "sampler_truncated": above.sum() / count,
    }


def clip_fraction(
    logprobs_BT: jax.Array, old_logprobs_BT: jax.Array, target_BT: jax.Array, *, clip_ratio: float
) -> jax.Array:
    """Returns the share of rows whose sequence-level ratio is outside the clip range; scalar in [0, 1]."""
    ratio_B = jnp.exp(((logprobs_BT - old_logprobs_BT) * target_BT).sum(-1))
    return (jnp.abs(ratio_B - 1) > clip_ratio).mean()


def kl_to_start(logprobs_BT: jax.Array, start_logprobs_BT: jax.Array, target_BT: jax.Array) -> jax.Array:
    r"""Estimate of the KL divergence of the policy from the policy before training, per generated token.

    .. math:: \mathrm{KL}(\pi_\theta \,\|\, \pi_0) \approx \frac{1}{B} \sum_i \frac{1}{|y_i|} \sum_t
        \left(e^{d_{it}} - d_{it} - 1\right), \quad d_{it} = \log \pi_0(y_{it}) - \log \pi_\theta(y_{it})

    Each term is non-negative, and their expectation over samples of pi_theta is the divergence (the k3 estimator).

    Args:
        logprobs_BT: log pi_theta of each token, in nats.
        start_logprobs_BT: log pi_0 of each token, in nats.
        target_BT: 1 on generated tokens, 0 on prompt tokens and padding.

    Returns:
        Scalar in nats per token; a row without generated tokens counts as 0.

    Source: Schulman 2020, Approximating KL divergence; Shao et al. 2024, DeepSeekMath, equation 4.

    >>> logp = jnp.log(jnp.array([[0.5, 0.5]]))
    >>> kl_to_start(logp, logp, jnp.ones((1, 2)))
    Array(0., dtype=float32)
    """
    difference_BT = (start_logprobs_BT - logprobs_BT) * target_BT
    terms_BT = jnp.expm1(difference_BT) - difference_BT
    return (terms_BT.sum(-1) / jnp.maximum(target_BT.sum(-1), 1)).mean()
