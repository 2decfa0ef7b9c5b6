"""Handles problems and updates that are not finite; stops training when they are repeated.

Shape suffixes: N problems, J solutions per problem, T tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mass_jax.errors import UserError
from mass_jax.method.text import Rollout
from mass_jax.types import PyTree


class NotFinite(UserError):
    """Raised when too many updates in a row were skipped because of non-finite gradients."""


def check_finite(*opt_states: PyTree, limit: int) -> None:
    """Checks that the outer optimizers still apply updates.

    Args:
        *opt_states: states of `outer_optimizer.make`, which count skipped updates.
        limit: number of consecutive skipped updates that stops the run.

    Raises:
        NotFinite: an outer optimizer has skipped `limit` updates in a row.
    """
    worst = max(int(opt_state.notfinite_count) for opt_state in opt_states)
    if worst >= limit:
        raise NotFinite(
            f"gradients were not finite in {worst} steps in a row (--max_skipped_steps={limit}); the last checkpoint "
            f"is valid: lower --inner_lr or --generator_lr, in a new --workdir"
        )


def only_finite(finite_N: jax.Array, solutions: Rollout) -> Rollout:
    """Masks the solutions of non-finite problems, whose log-probabilities are not finite either."""
    kept: Any = jax.tree.map(
        lambda leaf: jnp.where(finite_N[:, None, None], leaf, 0), (solutions.text.target_BT, *solutions[1:])
    )
    return Rollout(solutions.text._replace(target_BT=kept[0]), *kept[1:])
