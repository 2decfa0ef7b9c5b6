"""Meta-training of hyperparameters of the inner optimizer, beside the generator and the scorer.

Shape suffixes: N problems, M examples per problem.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mass_jax import metagrad as mg
from mass_jax.method import outer_optimizer
from mass_jax.method.adapt import LoraLoop
from mass_jax.method.models import Weights
from mass_jax.types import Params, PyTree


class LearningState(NamedTuple):
    """State of meta-training that also learns hyperparameters of the inner optimizer.

    Attributes:
        step, policy, scorer, policy_opt_state, scorer_opt_state: as in `meta_step.MetaState`.
        inner: the hyperparameters, as `LearnedInner` parameterizes them.
        inner_opt_state: state of their optimizer.
    """

    step: jax.Array
    policy: Params
    scorer: Params
    policy_opt_state: PyTree
    scorer_opt_state: PyTree
    inner: PyTree
    inner_opt_state: PyTree


def with_inner(state: Any, loop: LoraLoop, optimizer: optax.GradientTransformation | None) -> Any:
    """Returns the initial state with the hyperparameters before training; unchanged if none are learned."""
    if loop.learned is None or optimizer is None:
        return state
    inner = loop.learned.start()
    return LearningState(**state._asdict(), inner=inner, inner_opt_state=optimizer.init(inner))


def weights_of(base: Params, state: Any) -> Weights:
    """Returns the generator's weights in a state, with the learned hyperparameters if there are any."""
    return Weights(base, state.policy, state.inner if isinstance(state, LearningState) else None)


def bilevel(
    loop: LoraLoop, weights: Weights, scores_M: jax.Array
) -> tuple[mg.WeightedLoss, PyTree, optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]]:
    """Returns the inner loss, the meta-parameters and the optimizer of a problem.

    The meta-parameters are the scores, or a pair of scores and hyperparameters if any are learned.
    """
    loss, learned = loop.loss(weights, scores_M.shape[0]), loop.learned
    if learned is None or weights.inner is None:
        return loss, scores_M, loop.optimizer
    paired = dataclasses.replace(loss, weights=lambda meta, _: meta[0])
    return paired, (scores_M, weights.inner), lambda meta: learned.build(meta[1])


def split(gradients: mg.MetaGradient) -> tuple[mg.MetaGradient, PyTree]:
    """Separates the gradients of the hyperparameters, with leading axis N; they are None if none are learned."""
    if not isinstance(gradients.meta, tuple):
        return gradients, None
    scores_NM, inner_N = gradients.meta
    return gradients._replace(meta=scores_NM), inner_N


def update(
    state: Any, loop: LoraLoop, optimizer: optax.GradientTransformation | None, inner_N: PyTree, finite_N: jax.Array
) -> tuple[Any, dict[str, jax.Array]]:
    r"""Updates the hyperparameters on the mean gradient of the finite problems.

    .. math:: \frac{1}{N} \sum_n \frac{d L_{outer, n}}{d \eta}

    Args:
        state: the state.
        loop: the inner loop.
        optimizer: optimizer of the hyperparameters.
        inner_N: gradients of each problem; None if no hyperparameters are learned.
        finite_N: True for problems that count.

    Returns:
        The state, and the learned values as metrics.
    """
    if inner_N is None or optimizer is None or loop.learned is None:
        return state, {}

    def mean(leaf_N: jax.Array) -> jax.Array:
        total = jnp.where(finite_N & jnp.isfinite(leaf_N), leaf_N, 0).sum() / finite_N.size
        return jnp.where(finite_N.any(), total, jnp.nan).astype(leaf_N.dtype)  # NaN makes the optimizer skip the step

    inner, opt_state = outer_optimizer.update(
        optimizer, jax.tree.map(mean, inner_N), state.inner, state.inner_opt_state
    )
    values = {f"learned/{name}": value for name, value in loop.learned.values(inner).items()}
    return state._replace(inner=inner, inner_opt_state=opt_state), values
