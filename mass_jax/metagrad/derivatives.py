"""Derivatives of an inner loss that meta-gradients need: its gradient, and products with its second derivative.

`JointDerivatives` accepts any inner loss and applies forward mode to its joint gradient. `WeightedDerivatives` exploits
linearity in per-example weights, and needs second derivatives only to carry the adjoint across a step.

Shape suffixes: K inner steps, M examples, C examples of one chunk.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mass_jax.metagrad import losses, trees
from mass_jax.metagrad.trees import PyTree


class Products(NamedTuple):
    """Products of derivatives with a direction v in parameter space; None if not requested or not defined.

    Attributes:
        hessian: H v, structured like the parameters.
        meta: (d/dmeta)(grad_params L) . v, for the differentiable leaves of meta.
        alignment_M: <grad l_i, v> for each example.
    """

    hessian: PyTree | None
    meta: PyTree | None
    alignment_M: jax.Array | None


class Derivatives(Protocol):
    """Interface of the derivatives of an inner loss."""

    def prepare(self, meta: PyTree, batch: PyTree, per_step: bool) -> PyTree:
        """Returns the data that the steps use, computed once before the loop."""

    def gradient(self, params: PyTree, meta: PyTree, context: PyTree) -> tuple[jax.Array, PyTree]:
        """Computes the loss and its gradient with respect to the parameters."""

    def products(self, params: PyTree, meta: PyTree, context: PyTree, direction: PyTree, hessian: bool) -> Products:
        """Computes products with `direction`; the Hessian product only if `hessian`."""

    def pull_meta(self, meta: PyTree, batch: PyTree, per_step: bool, summed: PyTree, alignment_KM: PyTree) -> PyTree:
        """Computes the cotangent of the meta-parameters from the sums of the sweep."""


@dataclasses.dataclass(frozen=True)
class JointDerivatives:
    """Derivatives of any inner loss `(params, meta, batch) -> scalar`."""

    loss: Callable[..., jax.Array]

    def prepare(self, meta: PyTree, batch: PyTree, per_step: bool) -> PyTree:
        """Returns the batch."""
        return batch

    def gradient(self, params: PyTree, meta: PyTree, context: PyTree) -> tuple[jax.Array, PyTree]:
        """Computes the loss and its gradient."""
        return jax.value_and_grad(self.loss)(params, meta, context)

    def products(self, params: PyTree, meta: PyTree, context: PyTree, direction: PyTree, hessian: bool) -> Products:
        """Computes one JVP of the joint gradient (MixFlow-MG, Kemaev et al. 2025, equation 7)."""
        active, rest = trees.split(meta)

        def loss(params: PyTree, active: PyTree) -> jax.Array:
            return self.loss(params, trees.merge(active, rest), context)

        def joint(params: PyTree) -> Any:
            return jax.grad(loss, argnums=(0, 1) if hessian else (1,))(params, active)

        _, tangents = jax.jvp(joint, (params,), (direction,))
        return Products(tangents[0] if hessian else None, tangents[-1], None)

    def pull_meta(self, meta: PyTree, batch: PyTree, per_step: bool, summed: PyTree, alignment_KM: PyTree) -> PyTree:
        """Returns the sum that the sweep accumulated."""
        return summed


@dataclasses.dataclass(frozen=True)
class WeightedDerivatives:
    """Derivatives of a `WeightedLoss`, which depends on the meta-parameters only through per-example weights."""

    loss: losses.WeightedLoss

    def prepare(self, meta: PyTree, batch: PyTree, per_step: bool) -> PyTree:
        """Evaluates the weights once, before the loop."""
        return self._weights(meta, batch, per_step), batch

    def gradient(self, params: PyTree, meta: PyTree, context: PyTree) -> tuple[jax.Array, PyTree]:
        """Computes the loss and its gradient, one chunk of examples at a time."""

        def part(weights_C: jax.Array, batch_C: PyTree) -> tuple[Any, None]:
            return jax.value_and_grad(self._total)(params, weights_C, batch_C), None

        return losses.over_chunks(part, self.loss.chunk, *context)[0]

    def products(self, params: PyTree, meta: PyTree, context: PyTree, direction: PyTree, hessian: bool) -> Products:
        """Computes alignments by one JVP of the example losses; the same pass gives H v if requested."""

        def with_hessian(weights_C: jax.Array, batch_C: PyTree) -> tuple[Any, jax.Array]:
            def gradient(params: PyTree) -> tuple[Any, jax.Array]:
                return jax.grad(self._total_and_losses, has_aux=True)(params, weights_C, batch_C)

            return jax.jvp(gradient, (params,), (direction,))[1]

        def without(weights_C: jax.Array, batch_C: PyTree) -> tuple[tuple[()], jax.Array]:
            return (), jax.jvp(lambda p: self.loss.example_losses(p, batch_C), (params,), (direction,))[1]

        part = with_hessian if hessian else without
        chunk = self.loss.product_chunk or self.loss.chunk if hessian else self.loss.chunk
        product, alignment_M = losses.over_chunks(part, chunk, *context)
        return Products(product if hessian else None, None, alignment_M)

    def pull_meta(self, meta: PyTree, batch: PyTree, per_step: bool, summed: PyTree, alignment_KM: jax.Array) -> PyTree:
        """Computes one VJP of the weights (such as a scorer network) for the steps that were differentiated."""
        active, rest = trees.split(meta)
        if per_step:
            steps = alignment_KM.shape[0]
            batch = jax.tree.map(lambda leaf: leaf[-steps:], batch)
        weights, pull = jax.vjp(lambda a: self._weights(trees.merge(a, rest), batch, per_step), active)
        total = alignment_KM if per_step else jnp.sum(alignment_KM, axis=0)
        return trees.add(summed, pull(total.astype(weights.dtype))[0])

    def _weights(self, meta: PyTree, batch: PyTree, per_step: bool) -> jax.Array:
        if per_step:
            return jax.vmap(lambda one: self.loss.weights_of(meta, one))(batch)
        return self.loss.weights_of(meta, batch)

    def _total(self, params: PyTree, weights_C: jax.Array, batch_C: PyTree) -> jax.Array:
        return losses.weighted_sum(weights_C, self.loss.example_losses(params, batch_C))

    def _total_and_losses(self, params: PyTree, weights_C: jax.Array, batch_C: PyTree) -> tuple[jax.Array, jax.Array]:
        losses_C = self.loss.example_losses(params, batch_C)
        return losses.weighted_sum(weights_C, losses_C), losses_C


def derivatives_of(loss: Callable[..., jax.Array]) -> Derivatives:
    """Returns the cheapest derivatives that an inner loss admits."""
    return WeightedDerivatives(loss) if isinstance(loss, losses.WeightedLoss) else JointDerivatives(loss)
