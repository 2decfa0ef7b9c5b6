"""Sizes of per-example gradients, to keep long or hard examples from being over-valued. Letters: M examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def example_gradient_norms(
    example_losses: Callable[[Any, Any], jax.Array], params: Any, batch: Any, *, chunk: int = 1
) -> jax.Array:
    r"""Norm of each example's gradient, for normalizing weights or alignments by it.

    .. math:: n_i = \lVert \nabla \ell_i(\phi) \rVert_2

    Raw meta-gradients grow with the size of an example's gradient. Adapting on :math:`\sum_i (w_i / n_i)\, \ell_i`
    (pass `weights_M / norms_M` as weights) makes every example push equally hard per unit of weight; the exact
    derivative in :math:`w` is then the meta-gradient divided by the norms.

    Args:
        example_losses: function `(params, batch) -> losses_M`, each loss depending on its own example only.
        params: where to take the gradients; with LoRA, the fresh adapter.
        batch: tree of leaves with the leading axis M.
        chunk: gradients held at a time.

    Returns:
        norms_M; exactly 0 for an example whose loss is constant (a masked one), so guard the division.

    Source: bias and remedy as reported by nick-rui/metagrad-distill.

    >>> import jax.numpy as jnp
    >>> example_gradient_norms(lambda p, b: b * p**2, jnp.float32(1.0), jnp.array([1.0, -3.0, 0.0])).tolist()
    [2.0, 6.0, 0.0]
    """

    def norm(example: Any) -> jax.Array:
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        return optax.tree.norm(jax.grad(lambda p: jnp.sum(example_losses(p, alone)))(params))

    return jax.lax.map(norm, batch, batch_size=chunk)
