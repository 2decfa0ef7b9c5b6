r"""The reverse sweep over inner steps that all but `ReverseUnroll` share.

At step t the cotangents :math:`(\lambda_{t+1}, \mu_{t+1})` of parameters and optimizer state pass through the VJP of
the optax update, which gives :math:`\bar g_t`, the cotangent of the inner gradient, and direct terms for
:math:`\lambda_t, \mu_t`; then :math:`\lambda_t \mathrel{+}= H_t \bar g_t`. Letters: K inner steps, M examples.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.metagrad import inner, products, trees


class Cotangents(NamedTuple):
    """What the sweep carries backward; `opt_state` and `meta` hold the differentiable leaves only."""

    params: Any
    opt_state: Any
    meta: Any


class Kept(NamedTuple):
    """A step's start, and its inner gradient where the policy saves it."""

    state: inner.InnerState
    grads: Any


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One inner loop with its data and policies; its methods run it forward and backward."""

    loop: inner.InnerLoop
    rule: products.JointRule | products.WeightedRule
    meta: Any
    context: Any
    hessian: bool
    save_grads: bool

    def keep(self, state: inner.InnerState, grads: Any) -> Kept:
        """What the forward pass stores for one step."""
        return Kept(state, grads if self.save_grads else None)

    def forward(
        self, state: inner.InnerState, first: Any, count: int, store: bool = True
    ) -> tuple[Any, jax.Array, Any]:
        """Runs `count` steps; returns the last state, their losses and, when asked to, what they keep."""
        keep = self.keep if store else lambda *_: None
        return inner.roll(self.loop, self.rule, state, self.meta, self.context, first, count, keep)

    def pull_update(self, kept: Kept, grads: Any, cotangents: Cotangents) -> tuple[Any, Any, Any, Any]:
        """VJP of the optax update: cotangents of (inner gradient, parameters, state, meta-parameters)."""
        active_state, other_state = trees.split(kept.state.opt_state)
        active_meta, other_meta = trees.split(self.meta) if self.loop.meta_in_optimizer else ((), ())

        def update(grads: Any, params: Any, opt_state: Any, active: Any) -> tuple[Any, Any]:
            meta = trees.merge(active, other_meta) if self.loop.meta_in_optimizer else self.meta
            state = inner.InnerState(params, trees.merge(opt_state, other_state))
            new = self.loop.update(grads, state, meta)
            return new.params, trees.split(new.opt_state)[0]

        _, pull = jax.vjp(update, grads, kept.state.params, active_state, active_meta)
        return pull((cotangents.params, cotangents.opt_state))

    def back(self, cotangents: Cotangents, kept: Kept, index: Any, hessian: bool) -> tuple[Cotangents, Any]:
        """One step backward; also the alignment of each example with this step's cotangent, where there is one."""
        context = self.loop.at(self.context, index)
        grads = kept.grads
        if grads is None:
            grads = self.rule.gradient(kept.state.params, self.meta, context)[1]
        direction, params, opt_state, from_update = self.pull_update(kept, grads, cotangents)
        product = self.rule.products(kept.state.params, self.meta, context, direction, hessian)
        if hessian:
            params = trees.add(params, product.hessian)
        meta = cotangents.meta
        if self.loop.meta_in_optimizer:
            meta = trees.add(meta, from_update)
        if product.meta is not None:
            meta = trees.add(meta, product.meta)
        return Cotangents(params, opt_state, meta), product.alignment_M

    def backward(self, cotangents: Cotangents, kept: Any, first: Any, start: int, count: int) -> tuple[Cotangents, Any]:
        """Steps first + count - 1 down to first + start, of which `kept` stacks what the forward pass stored."""

        def step(carry: Cotangents, index: jax.Array) -> tuple[Cotangents, Any]:
            return self.back(carry, trees.take(kept, index), first + index, self.hessian)

        return jax.lax.scan(step, cotangents, jnp.arange(start, count), reverse=True)

    def after_last(self, params: Any, state: inner.InnerState) -> Cotangents:
        """Cotangents after the last step, given that of the parameters."""
        zeros = jax.tree.map(jnp.zeros_like, (trees.split(state.opt_state)[0], trees.split(self.meta)[0]))
        return Cotangents(params, *zeros)
