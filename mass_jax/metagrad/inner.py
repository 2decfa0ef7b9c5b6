"""Inner loop: K steps of an optax optimizer as one pure function.

Shape suffixes: K inner steps, M examples.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.errors import UserError
from mass_jax.metagrad import derivatives, losses, transformations, trees, validation
from mass_jax.metagrad.transformations import Optimizer
from mass_jax.metagrad.trees import PyTree


class Adapted(NamedTuple):
    """Result of `adapt`.

    Attributes:
        params: parameters after K steps.
        opt_state: optimizer state after K steps.
        losses_K: inner loss before each step.
    """

    params: PyTree
    opt_state: PyTree
    losses_K: jax.Array


class InnerState(NamedTuple):
    """Carry of the inner loop: parameters and optimizer state."""

    params: PyTree
    opt_state: PyTree


@dataclasses.dataclass(frozen=True)
class InnerLoop:
    r"""Specification of the inner loop.

    .. math:: (\phi_{t+1}, u_{t+1}) = \Upsilon(\nabla_\phi L(\phi_t, \eta; b_t), \phi_t, u_t; \eta)

    Attributes:
        loss: inner loss `(params, meta, batch) -> scalar`.
        optimizer: optax optimizer, or a function of the meta-parameters that returns one.
        num_steps: number of steps K.
        batch_per_step: whether each step has its own slice of the batch.
    """

    loss: Callable[..., jax.Array]
    optimizer: Optimizer
    num_steps: int
    batch_per_step: bool

    def __post_init__(self) -> None:
        if isinstance(self.num_steps, bool) or not isinstance(self.num_steps, int | np.integer):
            raise UserError(f"num_steps={self.num_steps!r} must be a Python int, since it sets the length of the loop")
        if self.num_steps < 1:
            raise UserError(f"num_steps={self.num_steps} must be at least 1")

    @property
    def meta_in_optimizer(self) -> bool:
        """True if the optimizer is a function of the meta-parameters."""
        return transformations.as_transformation(self.optimizer) is None

    def start(self, params: PyTree, meta: PyTree) -> InnerState:
        """Returns the state before the first step."""
        return InnerState(params, transformations.initial_state(transformations.build(self.optimizer, meta), params))

    def update(self, grads: PyTree, state: InnerState, meta: PyTree) -> InnerState:
        """Applies one optimizer update."""
        transformation = transformations.build(self.optimizer, meta)
        return InnerState(*transformations.step(transformation, grads, state.opt_state, state.params))

    def at(self, context: PyTree, step: Any) -> PyTree:
        """Returns the data of inner step `step`."""
        return trees.take(context, step) if self.batch_per_step else context

    def check_batch(self, batch: PyTree) -> None:
        """Raises a UserError if a per-step batch does not have the leading axis K."""
        if self.batch_per_step and not jax.tree.leaves(batch):
            raise UserError("batch_per_step=True needs a batch with one slice per step, but the batch has no leaves")
        for path, leaf in jax.tree_util.tree_leaves_with_path(batch) if self.batch_per_step else ():
            if jnp.shape(leaf)[:1] != (self.num_steps,):
                raise UserError(
                    f"batch_per_step=True needs a leading axis of num_steps={self.num_steps}, but batch"
                    f"{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}"
                )


def make_loop(inner_loss: Any, optimizer: Optimizer, num_steps: int, batch_per_step: bool, batch: PyTree) -> InnerLoop:
    """Validates the arguments of a caller and builds the inner loop."""
    if not callable(inner_loss):
        raise UserError(f"inner_loss={inner_loss!r} is not callable; give a function (params, meta, batch) -> scalar")
    if not isinstance(inner_loss, losses.WeightedLoss):
        inner_loss = validation.scalar_loss("inner_loss", inner_loss)
    loop = InnerLoop(inner_loss, optimizer, num_steps, batch_per_step)
    loop.check_batch(batch)
    return loop


def roll(
    loop: InnerLoop,
    loss_derivatives: derivatives.Derivatives,
    state: InnerState,
    meta: PyTree,
    context: PyTree,
    first: Any,
    count: int,
    record: Callable[..., Any],
) -> tuple[InnerState, jax.Array, Any]:
    """Runs steps first, ..., first + count - 1; returns the last state, losses, and stacked `record(state, grads)`."""

    def step(state: InnerState, index: jax.Array) -> tuple[InnerState, Any]:
        value, grads = loss_derivatives.gradient(state.params, meta, loop.at(context, index))
        return loop.update(grads, state, meta), (value, record(state, grads))

    state, (losses_K, records) = jax.lax.scan(step, state, first + jnp.arange(count))
    return state, losses_K, records


def run(loop: InnerLoop, params: PyTree, meta: PyTree, batch: PyTree) -> Adapted:
    """Runs all steps of an inner loop."""
    loss_derivatives = derivatives.derivatives_of(loop.loss)
    context = loss_derivatives.prepare(meta, batch, loop.batch_per_step)
    state, losses_K, _ = roll(
        loop, loss_derivatives, loop.start(params, meta), meta, context, 0, loop.num_steps, lambda *_: None
    )
    return Adapted(state.params, state.opt_state, losses_K)


def adapt(
    inner_loss: Callable[..., jax.Array],
    params: PyTree,
    meta: PyTree,
    batch: PyTree,
    *,
    optimizer: Optimizer,
    num_steps: int,
    batch_per_step: bool = False,
) -> Adapted:
    r"""Adapts parameters by K optimizer steps on an inner loss.

    .. math:: (\phi_{t+1}, u_{t+1}) = \Upsilon(\nabla_\phi L(\phi_t, \eta; b_t), \phi_t, u_t), \quad t = 0 \dots K-1

    Args:
        inner_loss: function `(params, meta, batch) -> scalar`, for example a `WeightedLoss`.
        params: initial parameters; all leaves are floating-point.
        meta: meta-parameters, any pytree that the inner loss accepts; weights_M for a plain `WeightedLoss`.
        batch: data of the inner loss, any pytree.
        optimizer: optax optimizer, or a function of `meta` that returns one, for example to learn a learning rate.
        num_steps: number of inner steps K, at least 1.
        batch_per_step: whether leaves of `batch` have a leading axis K with one slice per step; otherwise all steps
            share the batch.

    Returns:
        `Adapted(params, opt_state, losses_K)`; `losses_K[t]` is the loss before step t.

    Raises:
        UserError: an argument is invalid; the message names it and the fix.

    >>> import jax.numpy as jnp, optax
    >>> loss = lambda params, meta, batch: meta * (params - batch) ** 2
    >>> out = adapt(loss, jnp.float32(0.0), jnp.float32(1.0), jnp.float32(2.0), optimizer=optax.sgd(0.25), num_steps=2)
    >>> out.params.tolist(), out.losses_K.tolist()
    (1.5, [4.0, 1.0])
    """
    params, meta = validation.parameters(params), validation.meta_parameters(meta)
    loop = make_loop(inner_loss, optimizer, num_steps, batch_per_step, batch)
    return run(loop, params, meta, batch)
