"""Projection of all tasks at once: the weights, and the adapters of all tasks as one pair of matrices.

On a GPU, an adapter per task takes a batch of small products, each of which walks through the whole width with a single
block of threads. One product with the columns of all tasks reads each adapter once too, and is split over the card.
Columns of other tasks are set to zero before the second product, so the sum is the same.

Shape suffixes: N tasks, M rows of a task, D input features, A columns of all projections with this input, C columns of
this product (by projection, task and rank), E output features of the product, F output features of the projection.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

_PARTS = 8  # of a narrow product
_FEW = 512  # up to this many tokens


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("rows_ED", "a_DA", "b_CE"),
    meta_fields=("tasks", "ranks", "first", "outputs"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class JointProjection:
    r"""Weights and adapters of one projection, possibly within a product that it shares with others.

    .. math:: y_n = W x_n + B^\top (m_n \odot A^\top x_n), \quad m_{nc} = 1 \text{ if column } c \text{ is of task } n

    Projections that share arrays each hold all of them; within one program, the compiler computes a product once.

    Attributes:
        rows_ED: weights; and last the transpose of A, if there are adapters without `a_DA`, which saves a product.
        a_DA: matrices A of all tasks side by side.
        b_CE: matrices B of all tasks one below the other, with zeros for all other outputs; None without adapters.
        tasks: N, or 1 for an adapter that all tasks share.
        ranks: rank of each projection among the columns C, from first to last.
        first: index of the first of the columns C in A.
        outputs: range of this projection's outputs in the product.

    >>> x_NMD, rows_FD = jnp.ones((2, 1, 3)), jnp.zeros((4, 3))
    >>> a_DA, b_CE = jnp.ones((3, 2)), jnp.array([[1.0] * 4, [10.0] * 4])  # two tasks of rank 1
    >>> JointProjection(rows_FD, a_DA, b_CE, 2, (1,), 0, (0, 4))(x_NMD)[:, 0, 0].tolist()
    [3.0, 30.0]
    """

    rows_ED: jax.Array
    a_DA: jax.Array | None
    b_CE: jax.Array | None
    tasks: int
    ranks: tuple[int, ...]
    first: int
    outputs: tuple[int, int]

    def __call__(self, x_NMD: jax.Array) -> jax.Array:
        """Returns the outputs [N, M, F], in the inputs' dtype."""
        y_NME = jax.lax.dot_general(x_NMD, self.rows_ED, (((2,), (1,)), ((), ())))
        if self.b_CE is not None:
            hidden_NMA = y_NME[..., -len(self.b_CE) :] if self.a_DA is None else _split_product(x_NMD, self.a_DA)
            y_NME += self._own(hidden_NMA).astype(x_NMD.dtype) @ self.b_CE
        return y_NME[..., slice(*self.outputs)]

    def _own(self, hidden_NMA: jax.Array) -> jax.Array:
        """Selects the columns of this product, and sets those of other tasks to zero."""
        hidden_NMC = hidden_NMA[..., self.first : self.first + self.tasks * sum(self.ranks)]
        if self.tasks > 1:
            task_C = np.concatenate([np.repeat(np.arange(self.tasks), rank) for rank in self.ranks])
            own_NC = np.arange(self.tasks)[:, None] == task_C
            hidden_NMC = jnp.where(own_NC[:, None], hidden_NMC, 0)
        return hidden_NMC


def _split_product(x_NMD: jax.Array, a_DA: jax.Array) -> jax.Array:
    """Multiplies by a narrow matrix; for few tokens, in parts of its rows at the same time, which are then added.

    In one part, a few blocks of threads walk through all rows: 30 us for 72 tokens and [14336, 96] on an H100.
    """
    parts = _PARTS if math.prod(x_NMD.shape[:-1]) <= _FEW and len(a_DA) % _PARTS == 0 else 1
    x_NMPD = x_NMD.reshape(*x_NMD.shape[:-1], parts, -1)
    a_PDA = a_DA.reshape(parts, -1, a_DA.shape[1])
    wide = jnp.promote_types(x_NMD.dtype, jnp.float32)
    products_PNMA = jnp.einsum("NMPD,PDA->PNMA", x_NMPD, a_PDA, preferred_element_type=wide)
    return jnp.sum(products_PNMA, axis=0)
