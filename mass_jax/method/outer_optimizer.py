"""Optimizers of the generator, of the scorer and of the Solver GRPO baseline."""

import functools

import jax
import optax

from mass_jax.errors import UserError
from mass_jax.expression import Chain, parse
from mass_jax.metagrad import building, transformations
from mass_jax.types import Params, PyTree


@functools.cache  # equal settings return the same object, so that the step of another seed is not compiled again
def make(
    rate: float, grad_clip: float, decay_steps: int | None = None, text: str = "adam"
) -> optax.GradientTransformation:
    """Returns an optimizer after global-norm clipping, which skips non-finite gradients and counts them in its state.

    Args:
        rate: learning rate, unless the expression gives one.
        grad_clip: global norm at which gradients are clipped.
        decay_steps: number of steps over which the rate decays linearly to 0; None keeps it constant.
        text: expression of the optimizer; see `mg.parse_optimizer`.

    Raises:
        UserError: the expression is invalid, the update needs more than the gradient, or the state cannot be split
            over devices like the parameters.
    """
    optimizer = building.build(resolve(text, rate, decay_steps))
    if text != "adam":
        _check(text, optimizer)
    return optax.apply_if_finite(
        optax.chain(optax.clip_by_global_norm(grad_clip), optimizer), max_consecutive_errors=2**31 - 1
    )


def resolve(text: str, rate: float, decay_steps: int | None = None) -> Chain:
    """Returns the expression of an outer optimizer with all arguments, as `make` builds it.

    >>> print(resolve("adam", 0.001, 100))
    adam(learning_rate=linear_schedule(init_value=0.001, end_value=0.0, transition_steps=100))
    """
    schedule = (
        rate
        if decay_steps is None
        else parse(f"linear_schedule(init_value={rate!r}, end_value=0.0, transition_steps={decay_steps})")
    )
    return building.resolve(text, schedule, differentiable=False)


def _check(text: str, optimizer: optax.GradientTransformation) -> None:
    """Traces one update of a matrix."""
    params = {"kernel": jax.ShapeDtypeStruct((6, 4), "float32")}
    try:
        state = jax.eval_shape(lambda p: transformations.initial_state(optimizer, p), params)
        jax.eval_shape(lambda p, s: transformations.step(optimizer, p, s, p), params, state)
    except UserError as error:
        raise UserError(str(error)) from error
    odd = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.shape not in ((), (6, 4))]
    if odd:
        raise UserError(
            f"it keeps a state of shape {odd[0]} for a matrix of shape (6, 4), which cannot be split "
            f"over devices like the parameters; use adam, adamw, lion or sgd"
        )


def update(
    optimizer: optax.GradientTransformation, grads: PyTree, params: Params, opt_state: PyTree
) -> tuple[Params, PyTree]:
    """Applies one update; returns the new parameters and the new state of the optimizer."""
    with jax.numpy_dtype_promotion("standard"):  # some optimizers of optax mix counts and floats
        updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state
