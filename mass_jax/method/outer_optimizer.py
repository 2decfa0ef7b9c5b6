"""Optimizer of the generator and of the scorer."""

import functools

import optax

from mass_jax.types import Params, PyTree


@functools.cache  # equal settings return the same object, so that the step of another seed is not compiled again
def make(rate: float, grad_clip: float, decay_steps: int | None = None) -> optax.GradientTransformation:
    """Returns Adam with global-norm clipping, which skips non-finite gradients and counts them in its state.

    Args:
        rate: Adam's learning rate.
        grad_clip: global norm at which gradients are clipped.
        decay_steps: number of steps over which the rate decays linearly to 0; None keeps it constant.
    """
    schedule = rate if decay_steps is None else optax.linear_schedule(rate, 0.0, decay_steps)
    return optax.apply_if_finite(
        optax.chain(optax.clip_by_global_norm(grad_clip), optax.adam(schedule)), max_consecutive_errors=2**31 - 1
    )


def update(
    optimizer: optax.GradientTransformation, grads: PyTree, params: Params, opt_state: PyTree
) -> tuple[Params, PyTree]:
    """Applies one update; returns the new parameters and the new state of the optimizer."""
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state
