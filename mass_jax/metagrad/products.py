"""The derivatives of an inner loss that a meta-gradient needs: its gradient, and products with its second derivative.

Two rules share one interface. `JointRule` takes any inner loss and differentiates its joint gradient forward;
`WeightedRule` uses that the loss is linear in per-example weights, and needs the second derivative only to carry the
adjoint across a step. Letters: K inner steps, M examples.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.metagrad import losses, trees


class Products(NamedTuple):
    """Products with one direction in parameter space; None where not asked for or not defined."""

    hessian: Any  # H v, like params
    meta: Any  # (d/dmeta)(grad_params L) . v, differentiable leaves of meta
    alignment_M: jax.Array | None  # < grad l_i, v >


@dataclasses.dataclass(frozen=True)
class JointRule:
    """Any inner loss `(params, meta, batch) -> scalar`."""

    loss: Callable[..., jax.Array]

    def prepare(self, meta: Any, batch: Any, per_step: bool) -> Any:
        """What the steps see of the data."""
        return batch

    def gradient(self, params: Any, meta: Any, context: Any) -> tuple[jax.Array, Any]:
        """Loss and gradient in the parameters."""
        return jax.value_and_grad(self.loss)(params, meta, context)

    def products(self, params: Any, meta: Any, context: Any, direction: Any, hessian: bool) -> Products:
        """One forward derivative of the joint gradient (MixFlow-MG, Kemaev et al. 2025, equation 7)."""
        active, rest = trees.split(meta)

        def loss(params: Any, active: Any) -> jax.Array:
            return self.loss(params, trees.merge(active, rest), context)

        def joint(params: Any) -> Any:
            return jax.grad(loss, argnums=(0, 1) if hessian else (1,))(params, active)

        _, tangents = jax.jvp(joint, (params,), (direction,))
        return Products(tangents[0] if hessian else None, tangents[-1], None)

    def pull_meta(self, meta: Any, batch: Any, per_step: bool, summed: Any, alignment: Any) -> Any:
        """Cotangent of the meta-parameters from what the sweep gathered."""
        return summed


@dataclasses.dataclass(frozen=True)
class WeightedRule:
    """A `WeightedLoss`: the meta-parameters enter through per-example weights only."""

    loss: losses.WeightedLoss

    def prepare(self, meta: Any, batch: Any, per_step: bool) -> Any:
        """Weights are evaluated here, once, outside the loop."""
        return self._weights(meta, batch, per_step), batch

    def gradient(self, params: Any, meta: Any, context: Any) -> tuple[jax.Array, Any]:
        """Loss and gradient in the parameters, a chunk of examples at a time."""

        def part(weights_C: jax.Array, batch_C: Any) -> tuple[Any, None]:
            return jax.value_and_grad(self._total)(params, weights_C, batch_C), None

        return losses.over_chunks(part, self.loss.chunk, *context)[0]

    def products(self, params: Any, meta: Any, context: Any, direction: Any, hessian: bool) -> Products:
        """Alignments by one forward derivative of the example losses; H v rides on the same pass when asked for."""

        def with_hessian(weights_C: jax.Array, batch_C: Any) -> tuple[Any, jax.Array]:
            def gradient(params: Any) -> tuple[Any, jax.Array]:
                return jax.grad(self._total_and_losses, has_aux=True)(params, weights_C, batch_C)

            return jax.jvp(gradient, (params,), (direction,))[1]

        def without(weights_C: jax.Array, batch_C: Any) -> tuple[tuple[()], jax.Array]:
            return (), jax.jvp(lambda p: self.loss.example_losses(p, batch_C), (params,), (direction,))[1]

        part = with_hessian if hessian else without
        chunk = self.loss.product_chunk or self.loss.chunk if hessian else self.loss.chunk
        product, alignment_M = losses.over_chunks(part, chunk, *context)
        return Products(product if hessian else None, None, alignment_M)

    def pull_meta(self, meta: Any, batch: Any, per_step: bool, summed: Any, alignment_KM: jax.Array) -> Any:
        """One VJP of the weights (of a scorer, say), outside the loop; only for the steps that were differentiated."""
        active, rest = trees.split(meta)
        if per_step:
            steps = alignment_KM.shape[0]
            batch = jax.tree.map(lambda leaf: leaf[-steps:], batch)
        weights, pull = jax.vjp(lambda a: self._weights(trees.merge(a, rest), batch, per_step), active)
        total = alignment_KM if per_step else jnp.sum(alignment_KM, axis=0)
        return trees.add(summed, pull(total.astype(weights.dtype))[0])

    def _weights(self, meta: Any, batch: Any, per_step: bool) -> jax.Array:
        if per_step:
            return jax.vmap(lambda one: self.loss.weights_of(meta, one))(batch)
        return self.loss.weights_of(meta, batch)

    def _total(self, params: Any, weights_C: jax.Array, batch_C: Any) -> jax.Array:
        return losses.weighted_sum(weights_C, self.loss.example_losses(params, batch_C))

    def _total_and_losses(self, params: Any, weights_C: jax.Array, batch_C: Any) -> tuple[jax.Array, jax.Array]:
        losses_C = self.loss.example_losses(params, batch_C)
        return losses.weighted_sum(weights_C, losses_C), losses_C


def rule_of(loss: Callable[..., jax.Array]) -> JointRule | WeightedRule:
    """The cheapest rule that an inner loss admits."""
    return WeightedRule(loss) if isinstance(loss, losses.WeightedLoss) else JointRule(loss)
