"""Norms of per-example gradients, for correcting the bias of meta-gradients toward long or hard examples.

Shape suffixes: M examples.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mass_jax.metagrad.trees import PyTree


def example_gradient_norms(
    example_losses: Callable[[PyTree, PyTree], jax.Array], params: PyTree, batch: PyTree, *, chunk: int = 1
) -> jax.Array:
    r"""Computes the norm of each example's gradient, for normalizing weights or alignments.

    .. math:: n_i = \lVert \nabla \ell_i(\phi) \rVert_2

    Meta-gradients grow with the norm of an example's gradient. Adapting on :math:`\sum_i (w_i / n_i)\, \ell_i` (pass
    `weights_M / norms_M` as weights) gives every example the same influence per unit of weight; the exact derivative
    with respect to :math:`w` is then the meta-gradient divided by the norms.

    Args:
        example_losses: function `(params, batch) -> losses_M`; each loss depends on its own example only.
        params: parameters at which to differentiate; for LoRA, the fresh adapter.
        batch: pytree whose leaves have the leading axis M.
        chunk: number of gradients in memory at a time.

    Returns:
        norms_M; exactly 0 for an example with a constant loss, such as a masked one, so guard the division.

    Source: bias and correction reported by nick-rui/metagrad-distill.

    >>> import jax.numpy as jnp
    >>> example_gradient_norms(lambda p, b: b * p**2, jnp.float32(1.0), jnp.array([1.0, -3.0, 0.0])).tolist()
    [2.0, 6.0, 0.0]
    """

    def norm(example: PyTree) -> jax.Array:
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        return optax.tree.norm(jax.grad(lambda p: jnp.sum(example_losses(p, alone)))(params))

    return jax.lax.map(norm, batch, batch_size=chunk)
