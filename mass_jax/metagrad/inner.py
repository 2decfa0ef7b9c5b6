"""The inner loop: K steps of any optax optimizer as one pure function.

Letters: K inner steps, M examples.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.errors import UserError
from mass_jax.metagrad import losses, products, transformations, trees, validation
from mass_jax.metagrad.transformations import Optimizer


class Adapted(NamedTuple):
    """Result of `adapt`: parameters and optimizer state after K steps, and the inner loss before each step."""

    params: Any
    opt_state: Any
    losses_K: jax.Array


class InnerState(NamedTuple):
    """What one inner step carries to the next."""

    params: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class InnerLoop:
    r"""What is iterated: :math:`(\phi_{t+1}, u_{t+1}) = \Upsilon(\nabla_\phi L(\phi_t, \eta), \phi_t, u_t; \eta)`."""

    loss: Callable[..., jax.Array]
    optimizer: Optimizer
    num_steps: int
    batch_per_step: bool

    def __post_init__(self) -> None:
        if isinstance(self.num_steps, bool) or not isinstance(self.num_steps, int | np.integer):
            raise UserError(f"num_steps={self.num_steps!r} must be a Python int, since it sets the length of the loop")
        if self.num_steps < 1:
            raise UserError(f"num_steps={self.num_steps} takes no inner step; give at least 1")

    @property
    def meta_in_optimizer(self) -> bool:
        """Whether the optimizer is a function of the meta-parameters."""
        return transformations.as_transformation(self.optimizer) is None

    def start(self, params: Any, meta: Any) -> InnerState:
        """Initial parameters with the optimizer's first state."""
        return InnerState(params, transformations.initial_state(transformations.build(self.optimizer, meta), params))

    def update(self, grads: Any, state: InnerState, meta: Any) -> InnerState:
        """One optax update, applied."""
        transformation = transformations.build(self.optimizer, meta)
        return InnerState(*transformations.step(transformation, grads, state.opt_state, state.params))

    def at(self, context: Any, step: Any) -> Any:
        """The part of the data that inner step `step` sees."""
        return trees.take(context, step) if self.batch_per_step else context

    def check_batch(self, batch: Any) -> None:
        """Refuses a per-step batch whose leading axis is not K."""
        if self.batch_per_step and not jax.tree.leaves(batch):
            raise UserError("batch_per_step=True needs a batch with one slice a step, but the batch has no leaves")
        for path, leaf in jax.tree_util.tree_leaves_with_path(batch) if self.batch_per_step else ():
            if jnp.shape(leaf)[:1] != (self.num_steps,):
                raise UserError(
                    f"batch_per_step=True needs a leading axis of num_steps={self.num_steps}, but batch"
                    f"{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}"
                )


def make_loop(inner_loss: Any, optimizer: Optimizer, num_steps: int, batch_per_step: bool, batch: Any) -> InnerLoop:
    """The inner loop for what a caller passed, checked."""
    if not callable(inner_loss):
        raise UserError(f"inner_loss={inner_loss!r} is not callable; give a function (params, meta, batch) -> scalar")
    if not isinstance(inner_loss, losses.WeightedLoss):
        inner_loss = validation.scalar_loss("inner_loss", inner_loss)
    loop = InnerLoop(inner_loss, optimizer, num_steps, batch_per_step)
    loop.check_batch(batch)
    return loop


def roll(
    loop: InnerLoop,
    rule: Any,
    state: InnerState,
    meta: Any,
    context: Any,
    first: Any,
    count: int,
    keep: Callable[..., Any],
) -> tuple[InnerState, jax.Array, Any]:
    """Runs steps first, ..., first + count - 1; returns the state, their losses, and `keep(state, grads)` of each."""

    def step(state: InnerState, index: jax.Array) -> tuple[InnerState, Any]:
        value, grads = rule.gradient(state.params, meta, loop.at(context, index))
        return loop.update(grads, state, meta), (value, keep(state, grads))

    state, (losses_K, kept) = jax.lax.scan(step, state, first + jnp.arange(count))
    return state, losses_K, kept


def adapt(
    inner_loss: Callable[..., jax.Array],
    params: Any,
    meta: Any,
    batch: Any,
    *,
    optimizer: Optimizer,
    num_steps: int,
    batch_per_step: bool = False,
) -> Adapted:
    r"""Adapts parameters by K optimizer steps on the inner loss.

    .. math:: (\phi_{t+1}, u_{t+1}) = \Upsilon(\nabla_\phi L(\phi_t, \eta; b_t), \phi_t, u_t), \quad t = 0 \dots K-1

    Args:
        inner_loss: function `(params, meta, batch) -> scalar`, for example a `WeightedLoss`.
        params: initial parameters, floating leaves.
        meta: meta-parameters, any tree that the inner loss understands (for `WeightedLoss`: weights_M).
        batch: data of the inner loss, any tree.
        optimizer: an optax optimizer, or a function of `meta` that returns one (a learning rate to be learned).
        num_steps: K, at least 1.
        batch_per_step: whether leaves of `batch` have a leading axis K, one slice a step; else all steps share it.

    Returns:
        `Adapted(params, opt_state, losses_K)`; `losses_K[t]` is the loss before step t.

    Raises:
        ValueError: a wrong argument, in one line that names it and the fix.

    >>> import jax.numpy as jnp, optax
    >>> loss = lambda params, meta, batch: meta * (params - batch) ** 2
    >>> out = adapt(loss, jnp.float32(0.0), jnp.float32(1.0), jnp.float32(2.0), optimizer=optax.sgd(0.25), num_steps=2)
    >>> out.params.tolist(), out.losses_K.tolist()
    (1.5, [4.0, 1.0])
    """
    params, meta = validation.parameters(params), validation.meta_parameters(meta)
    loop = make_loop(inner_loss, optimizer, num_steps, batch_per_step, batch)
    rule = products.rule_of(loop.loss)
    context = rule.prepare(meta, batch, batch_per_step)
    state, losses_K, _ = roll(loop, rule, loop.start(params, meta), meta, context, 0, num_steps, lambda *_: None)
    return Adapted(state.params, state.opt_state, losses_K)
