"""Inner losses that are linear in per-example weights, whole or a chunk of examples at a time.

Letters: M examples, C examples of one chunk.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mass_jax.errors import UserError
from mass_jax.metagrad import trees


@dataclasses.dataclass(frozen=True)
class WeightedLoss:
    r"""Inner loss linear in per-example weights, the form that `WeightedMixedMode` needs.

    .. math:: L(\phi, w) = \sum_{i=1}^{M} w_i\, \ell_i(\phi)

    With `chunk`, examples are taken C at a time, so that memory is that of C examples whatever M is; example losses
    must then depend on their own example only, and every leaf of the batch has the leading axis M.

    Attributes:
        example_losses: function `(params, batch) -> losses_M`.
        weights: function `(meta, batch) -> weights_M`; None says that the meta-parameters are the weights. It is
            evaluated, and differentiated once, outside the inner loop: a scorer network may stand here.
        chunk: examples at a time, a divisor of M; None takes all at once.
        product_chunk: examples at a time in Hessian products, which hold twice what a gradient holds; None is `chunk`.
            Half of what the gradient takes makes the exact meta-gradient as lean as the first-order one.

    Source: Kaya and Rui 2026 (MASS), section 2.1, the inner objective.

    >>> import jax.numpy as jnp
    >>> loss = WeightedLoss(lambda params, batch: (params - batch) ** 2)
    >>> float(loss(jnp.float32(1.0), jnp.array([1.0, 0.5]), jnp.array([0.0, 3.0])))
    3.0
    """

    example_losses: Callable[[Any, Any], jax.Array]
    weights: Callable[[Any, Any], jax.Array] | None = None
    chunk: int | None = None
    product_chunk: int | None = None

    def __call__(self, params: Any, meta: Any, batch: Any) -> jax.Array:
        weights_M = self.weights_of(meta, batch)
        if self.chunk is None:
            return weighted_sum(weights_M, self.example_losses(params, batch))

        def body(total: jax.Array, part: tuple[jax.Array, Any]) -> tuple[jax.Array, None]:
            weights_C, batch_C = part
            return total + weighted_sum(weights_C, self.example_losses(params, batch_C)), None

        parts = in_chunks((weights_M, batch), self.chunk)
        one = jax.eval_shape(lambda part: body(jnp.zeros(()), part)[0], jax.tree.map(lambda leaf: leaf[0], parts))
        return jax.lax.scan(jax.checkpoint(body, prevent_cse=False), jnp.zeros((), one.dtype), parts)[0]

    def weights_of(self, meta: Any, batch: Any) -> jax.Array:
        """The weights of one batch, [M]."""
        return meta if self.weights is None else self.weights(meta, batch)


def weighted_sum(weights_M: jax.Array, losses_M: jax.Array) -> jax.Array:
    """The scalar sum of w_i l_i, in the wider of both dtypes."""
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


def in_chunks(tree: Any, chunk: int) -> Any:
    """Reshapes leaves [M, ...] to [M / C, C, ...]."""

    def reshape(leaf: jax.Array) -> jax.Array:
        size = jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0
        if chunk < 1 or size == 0 or size % chunk:
            raise UserError(f"chunk={chunk} does not divide a leaf of shape {jnp.shape(leaf)}; choose a divisor of M")
        return jnp.reshape(leaf, (size // chunk, chunk, *jnp.shape(leaf)[1:]))

    return jax.tree.map(reshape, tree)


def over_chunks(function: Callable[..., tuple[Any, Any]], chunk: int | None, *args: Any) -> tuple[Any, Any]:
    """Applies `function(*args) -> (summed, per_example)` a chunk at a time, adding the first, joining the second.

    No chunk's intermediates outlive it, and, unlike differentiation of a scan over chunks, nothing is recomputed.
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
