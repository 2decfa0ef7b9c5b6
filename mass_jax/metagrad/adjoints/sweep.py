r"""Forward and backward passes over inner steps, shared by all adjoints except `ReverseUnroll`.

At step t, the cotangents :math:`(\lambda_{t+1}, \mu_{t+1})` of parameters and optimizer state pass through the VJP of
the optax update. It gives :math:`\bar g_t`, the cotangent of the inner gradient, and direct terms for
:math:`\lambda_t, \mu_t`; then :math:`\lambda_t \mathrel{+}= H_t \bar g_t`.

Shape suffixes: K inner steps, M examples.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.metagrad import inner, trees
from mass_jax.metagrad.derivatives import Derivatives
from mass_jax.metagrad.trees import PyTree


class Cotangents(NamedTuple):
    """Carry of the backward pass; `opt_state` and `meta` hold differentiable leaves only."""

    params: PyTree
    opt_state: PyTree
    meta: PyTree


Record = Callable[[inner.InnerState, PyTree], PyTree]
"""Function of a step's state and inner gradient that returns what the forward pass stores of the step."""


class StepRecord(NamedTuple):
    """State before a step, and its inner gradient if the policy stores it, else None."""

    state: inner.InnerState
    grads: PyTree | None


def no_record(state: inner.InnerState, grads: PyTree) -> None:
    """Stores nothing."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """An inner loop with its data and policies.

    Attributes:
        loop: the inner loop.
        derivatives: derivatives of the inner loss.
        meta: meta-parameters.
        context: batch as prepared by `derivatives.prepare`.
        hessian: whether to compute Hessian products.
        save_grads: whether the forward pass stores inner gradients.
    """

    loop: inner.InnerLoop
    derivatives: Derivatives
    meta: PyTree
    context: PyTree
    hessian: bool
    save_grads: bool

    def record(self, state: inner.InnerState, grads: PyTree) -> StepRecord:
        """Returns what the forward pass stores for one step."""
        return StepRecord(state, grads if self.save_grads else None)

    def forward(
        self, state: inner.InnerState, first: Any, count: int, record: Record
    ) -> tuple[inner.InnerState, jax.Array, Any]:
        """Runs `count` steps; returns the last state, the losses, and the stacked results of `record`."""
        return inner.roll(self.loop, self.derivatives, state, self.meta, self.context, first, count, record)

    def pull_update(
        self, record: StepRecord, grads: PyTree, cotangents: Cotangents
    ) -> tuple[PyTree, PyTree, PyTree, PyTree]:
        """Computes the update's VJP: cotangents of inner gradient, parameters, optimizer state, meta-parameters."""
        active_state, other_state = trees.split(record.state.opt_state)
        active_meta, other_meta = trees.split(self.meta) if self.loop.meta_in_optimizer else ((), ())

        def update(grads: PyTree, params: PyTree, opt_state: PyTree, active: PyTree) -> tuple[PyTree, PyTree]:
            meta = trees.merge(active, other_meta) if self.loop.meta_in_optimizer else self.meta
            state = inner.InnerState(params, trees.merge(opt_state, other_state))
            new = self.loop.update(grads, state, meta)
            return new.params, trees.split(new.opt_state)[0]

        _, pull = jax.vjp(update, grads, record.state.params, active_state, active_meta)
        return pull((cotangents.params, cotangents.opt_state))

    def step_back(
        self, cotangents: Cotangents, record: StepRecord, index: Any, hessian: bool
    ) -> tuple[Cotangents, jax.Array | None]:
        """Moves the cotangents back by one step; also returns alignment_M, or None."""
        context = self.loop.at(self.context, index)
        grads = record.grads
        if grads is None:
            grads = self.derivatives.gradient(record.state.params, self.meta, context)[1]
        direction, params, opt_state, from_update = self.pull_update(record, grads, cotangents)
        product = self.derivatives.products(record.state.params, self.meta, context, direction, hessian)
        if hessian:
            params = trees.add(params, product.hessian)
        meta = cotangents.meta
        if self.loop.meta_in_optimizer:
            meta = trees.add(meta, from_update)
        if product.meta is not None:
            meta = trees.add(meta, product.meta)
        return Cotangents(params, opt_state, meta), product.alignment_M

    def backward(
        self, cotangents: Cotangents, records: StepRecord, first: Any, start: int, count: int
    ) -> tuple[Cotangents, jax.Array | None]:
        """Moves the cotangents back from step first + count - 1 to first + start; `records` are those of all steps."""

        def step(carry: Cotangents, index: jax.Array) -> tuple[Cotangents, jax.Array | None]:
            return self.step_back(carry, trees.take(records, index), first + index, self.hessian)

        return jax.lax.scan(step, cotangents, jnp.arange(start, count), reverse=True)

    def after_last(self, params: PyTree, state: inner.InnerState) -> Cotangents:
        """Returns the cotangents after the last step, given that of the parameters."""
        zeros = jax.tree.map(jnp.zeros_like, (trees.split(state.opt_state)[0], trees.split(self.meta)[0]))
        return Cotangents(params, *zeros)
