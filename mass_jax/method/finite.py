"""Stops a training whose updates are not finite."""

from typing import Any

from mass_jax.errors import UserError


class NotFinite(UserError):
    """Too many updates in a row were skipped because their gradients were not finite."""


def check_finite(*opt_states: Any, limit: int) -> None:
    """Stops a run whose updates keep being skipped.

    Raises:
        NotFinite: an outer optimizer has skipped `limit` updates in a row.
    """
    worst = max(int(opt_state.notfinite_count) for opt_state in opt_states)
    if worst >= limit:
        raise NotFinite(
            f"gradients were not finite in {worst} steps in a row (--max_skipped_steps={limit}); the last checkpoint "
            f"is sound: lower --inner_lr or --generator_lr, in a new --workdir"
        )
