"""The outer loss of an adapted model, on gold solutions or verified attempts.

Shape suffixes: N problems, M examples per problem, J solutions of a problem (1 gold solution, or k attempts), T tokens.
"""

import jax
import jax.numpy as jnp

from mass_jax.method.adapt import LoraLoop, adapt
from mass_jax.method.groups import over_tasks
from mass_jax.method.models import Read, Solver, Weights
from mass_jax.method.text import Text
from mass_jax.types import Adapter, PyTree


def outer_loss(
    solver: Solver, weights: Weights, adapter: Adapter, solutions: Text | Read, right_J: jax.Array
) -> jax.Array:
    r"""Cross-entropy of one problem's correct solutions under the adapted model.

    .. math:: L_{outer}(\phi_K) = \frac{\sum_j v_j \ell(T, R_j; \phi_K)}{\max(1, \sum_j v_j)}

    with v_j = 1 for the gold solution and for attempts that passed verification ("treat verified responses as the
    target").

    Args:
        solver: the language model.
        weights: the generator's weights.
        adapter: the adapted adapter phi_K.
        solutions: rows [J, T] in solver form, or the result of `Solver.read`.
        right_J: 1 for correct solutions; if there are none, the loss and its gradient are 0.

    Returns:
        Scalar in nats per token.

    Source: the paper, section 2.2.
    """
    losses_J = solver.completion_nll(weights, solutions, adapter)
    right_J = right_J.astype(losses_J.dtype)
    return jnp.vdot(right_J, losses_J) / jnp.maximum(right_J.sum(), 1)


def adapted_losses(
    loop: LoraLoop,
    weights: Weights,
    adapters: Adapter,
    scores_NM: jax.Array,
    examples: Text,
    solutions: Text,
    right_NJ: jax.Array,
) -> jax.Array:
    r"""Outer losses after adaptation, without their derivatives.

    .. math:: L(s) = L_{outer}(\phi_K(s))

    Args:
        loop: the inner loop.
        weights: the generator's weights.
        adapters: fresh adapters, one per problem.
        scores_NM: scores of the examples.
        examples: rows [N, M, T] in solver form.
        solutions: rows [N, J, T] in solver form.
        right_NJ: 1 for correct solutions.

    Returns:
        Losses [N] in nats per token.

    Source: the paper, sections 2.1 and 2.2.
    """
    adapted = adapt(loop, weights, adapters, scores_NM, examples)

    def one(leaves: PyTree, rows_JT: Text, right_J: jax.Array) -> jax.Array:
        return outer_loss(loop.solver, weights, adapted.one(leaves), rows_JT, right_J)

    return over_tasks(one, loop.tasks_at_a_time, adapted.leaves, solutions, right_NJ)
