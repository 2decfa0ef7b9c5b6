"""Stops training when updates are repeatedly not finite."""

from mass_jax.errors import UserError
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
