"""The outer loss of an adapted model, from gold solutions or from verified attempts.

Letters: N tasks, J solutions of a task (1 gold, or k attempts), T tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mass_jax.method.models import Read, Solver, Weights
from mass_jax.method.text import Text


def outer_loss(solver: Solver, weights: Weights, adapter: Any, solutions: Text | Read, right_J: jax.Array) -> jax.Array:
    r"""Cross-entropy of one task's right solutions under the adapted model.

    .. math:: L_{outer}(\phi_K) = \frac{\sum_j v_j \ell(T, R_j; \phi_K)}{\max(1, \sum_j v_j)}

    with v_j = 1 for the gold solution, or for an attempt that the verifier found right ("treat verified responses as
    the target").

    Args:
        solver, weights: the model; `adapter` holds phi_K.
        solutions: rows [J, T] in solver form, or what `Solver.read` made of them.
        right_J: 1 for rows that count; where none does, the loss and its gradient are 0.

    Returns:
        Scalar in nats a token.

    Source: the paper, section 2.2.
    """
    losses_J = solver.completion_nll(weights, solutions, adapter)
    right_J = right_J.astype(losses_J.dtype)
    return jnp.vdot(right_J, losses_J) / jnp.maximum(right_J.sum(), 1)
