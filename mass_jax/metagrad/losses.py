"""Inner losses that are linear in per-example weights, evaluated at once or in chunks of examples.

Shape suffixes: M examples, C examples of one chunk.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mass_jax.errors import UserError
from mass_jax.metagrad import trees
from mass_jax.metagrad.trees import PyTree


@dataclasses.dataclass(frozen=True)
class WeightedLoss:
    r"""Inner loss that is linear in per-example weights, as `WeightedMixedMode` requires.

    .. math:: L(\phi, w) = \sum_{i=1}^{M} w_i\, \ell_i(\phi)

    With `chunk`, C examples are evaluated at a time, so that memory does not grow with M. Each example's loss must then
    depend on that example only, and every leaf of the batch must have the leading axis M.

    Attributes:
        example_losses: function `(params, batch) -> losses_M`.
        weights: function `(meta, batch) -> weights_M`, for example a scorer network; it is evaluated and differentiated
            once, outside the inner loop. If None, the meta-parameters are the weights.
        chunk: number of examples per chunk, a divisor of M; None evaluates all at once.
        product_chunk: number of examples per chunk in Hessian products, which need twice the memory of a gradient; None
            means `chunk`. With half of `chunk`, the exact meta-gradient needs no more memory than the first-order one.

    Source: Kaya and Rui 2026 (MASS), section 2.1, the inner objective.

    >>> import jax.numpy as jnp
    >>> loss = WeightedLoss(lambda params, batch: (params - batch) ** 2)
    >>> float(loss(jnp.float32(1.0), jnp.array([1.0, 0.5]), jnp.array([0.0, 3.0])))
    3.0
    """

    example_losses: Callable[[PyTree, PyTree], jax.Array]
    weights: Callable[[PyTree, PyTree], jax.Array] | None = None
    chunk: int | None = None
    product_chunk: int | None = None

    def __call__(self, params: PyTree, meta: PyTree, batch: PyTree) -> jax.Array:
        weights_M = self.weights_of(meta, batch)
        if self.chunk is None:
            return weighted_sum(weights_M, self.example_losses(params, batch))

        def body(total: jax.Array, part: tuple[jax.Array, Any]) -> tuple[jax.Array, None]:
            weights_C, batch_C = part
            return total + weighted_sum(weights_C, self.example_losses(params, batch_C)), None

        parts = in_chunks((weights_M, batch), self.chunk)
        one = jax.eval_shape(lambda part: body(jnp.zeros(()), part)[0], jax.tree.map(lambda leaf: leaf[0], parts))
        return jax.lax.scan(jax.checkpoint(body, prevent_cse=False), jnp.zeros((), one.dtype), parts)[0]

    def weights_of(self, meta: PyTree, batch: PyTree) -> jax.Array:
        """Returns the weights of one batch, shape [M]."""
        return meta if self.weights is None else self.weights(meta, batch)


def weighted_sum(weights_M: jax.Array, losses_M: jax.Array) -> jax.Array:
    """Computes the scalar sum of w_i l_i in the wider of the two dtypes."""
    if not hasattr(losses_M, "shape"):
        raise UserError(
            f"example_losses returned a {type(losses_M).__name__}; return an array with one loss per example"
        )
    if not hasattr(weights_M, "shape"):
        raise UserError(f"weights are a {type(weights_M).__name__}; give an array, or WeightedLoss(weights=function)")
    if weights_M.shape != losses_M.shape:
        raise UserError(
            f"weights have shape {weights_M.shape} but example_losses returned {losses_M.shape}; "
            "return one loss per example and pass one weight per example"
        )
    for name, values in (("weights are", weights_M), ("example_losses returned", losses_M)):
        if not jnp.issubdtype(values.dtype, jnp.floating):
            raise UserError(f"{name} {values.dtype}, which has no derivative; give them as float32")
    dtype = jnp.promote_types(weights_M.dtype, losses_M.dtype)
    return jnp.vdot(weights_M.astype(dtype), losses_M.astype(dtype))


def in_chunks(tree: PyTree, chunk: int) -> PyTree:
    """Reshapes leaves [M, ...] to [M / C, C, ...]."""

    def reshape(leaf: jax.Array) -> jax.Array:
        size = jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0
        if chunk < 1 or size == 0 or size % chunk:
            raise UserError(f"chunk={chunk} does not divide a leaf of shape {jnp.shape(leaf)}; choose a divisor of M")
        return jnp.reshape(leaf, (size // chunk, chunk, *jnp.shape(leaf)[1:]))

    return jax.tree.map(reshape, tree)


def over_chunks(function: Callable[..., tuple[Any, Any]], chunk: int | None, *args: Any) -> tuple[Any, Any]:
    """Applies `function(*args) -> (summed, per_example)` chunk by chunk; adds the first, concatenates the second.

    Intermediates of a chunk are freed at its end and, unlike in a differentiated scan, nothing is recomputed.
    """
    if chunk is None:
        return function(*args)
    parts = in_chunks(args, chunk)
    shapes = jax.eval_shape(lambda part: function(*part)[0], jax.tree.map(lambda leaf: leaf[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def body(total: Any, part: tuple[Any, ...]) -> tuple[Any, Any]:
        summed, each = function(*part)
        return trees.add(total, summed), each

    total, each = jax.lax.scan(body, zeros, parts)
    return total, jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, *leaf.shape[2:])), each)
