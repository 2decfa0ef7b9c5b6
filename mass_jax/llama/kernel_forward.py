r"""Bodies of the Pallas kernels of attention's forward pass and of its tangents.

For a query i and a key j of one head with H features, where only j visible from i count,

.. math::

    s_{ij} = q_i \cdot k_j / \sqrt{H}, \quad L_i = \log \sum_j e^{s_{ij}}, \quad p_{ij} = e^{s_{ij} - L_i},
    \quad o_i = \sum_j p_{ij} v_j.

The tangents of the output o and of the log-normalizer L take one pass over the keys, since p follows from L:

.. math::

    \dot s_{ij} = (\dot q_i \cdot k_j + q_i \cdot \dot k_j) / \sqrt{H}, \quad \dot L_i = \sum_j p_{ij} \dot s_{ij},
    \quad \dot o_i = \sum_j p_{ij} (\dot s_{ij} v_j + \dot v_j) - \dot L_i o_i.

Shape suffixes as in `kernel_tiles`.
"""

from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl

from mass_jax.llama.kernel_tiles import AXIS, Tiling, column, dot, weights_of
from mass_jax.llama.precision import wide


def forward(tiling: Tiling, query: Any, key: Any, value: Any, visible: Any, out: Any, normalizer: Any) -> None:
    """Computes the output and the log-normalizer of a tile of queries; both are 0 if no key is visible."""
    query_CH, dtype, tile = query[...], wide(query.dtype), pl.program_id(AXIS)
    hidden = 0.5 * float(jnp.finfo(dtype).min)

    def step(j: Any, carry: Any) -> Any:
        mixed_CH, top_C1, total_C1 = carry
        value_EH = value[tiling.at(j), :]
        seen_CE = tiling.causal(tile, j, 0) & (visible[:, tiling.at(j)] != 0)
        scores_CE = jnp.where(seen_CE, tiling.scale * dot(query_CH, key[tiling.at(j), :], 1), hidden)
        new_C1 = jnp.maximum(top_C1, scores_CE.max(axis=1, keepdims=True))
        powers_CE = jnp.where(seen_CE, jnp.exp(scores_CE - new_C1), 0.0)
        decay_C1 = jnp.exp(top_C1 - new_C1)
        mixed_CH = mixed_CH * decay_C1 + dot(powers_CE.astype(value_EH.dtype), value_EH, 0)
        return mixed_CH, new_C1, total_C1 * decay_C1 + powers_CE.sum(axis=1, keepdims=True)

    shape_C1 = (tiling.block, 1)
    start = jnp.zeros(query_CH.shape, dtype), jnp.full(shape_C1, hidden, dtype), jnp.zeros(shape_C1, dtype)
    mixed_CH, top_C1, total_C1 = tiling.keys(step, start)
    divisor_C1 = jnp.where(total_C1 > 0, total_C1, 1.0)
    out[...] = (mixed_CH / divisor_C1).astype(out.dtype)
    logs_C1 = jnp.where(total_C1 > 0, top_C1 + jnp.log(divisor_C1), 0.0)
    normalizer[...] = logs_C1.reshape(normalizer.shape)


def forward_tangent(
    tiling: Tiling,
    query: Any,
    key: Any,
    value: Any,
    visible: Any,
    out: Any,
    normalizer: Any,
    query_dot: Any,
    key_dot: Any,
    value_dot: Any,
    out_dot: Any,
    normalizer_dot: Any,
) -> None:
    """Computes the tangents of `forward`."""
    query_CH, query_dot_CH, normalizer_C1 = query[...], query_dot[...], column(normalizer)
    dtype, tile = normalizer_C1.dtype, pl.program_id(AXIS)

    def step(j: Any, carry: Any) -> Any:
        mixed_CH, total_C1 = carry
        key_EH, value_EH = key[tiling.at(j), :], value[tiling.at(j), :]
        weights_CE = weights_of(tiling, query_CH, key_EH, visible, normalizer_C1, (tile, j))
        scores_dot_CE = tiling.scale * (dot(query_dot_CH, key_EH, 1) + dot(query_CH, key_dot[tiling.at(j), :], 1))
        weighted_CE = weights_CE * scores_dot_CE
        mixed_CH += dot(weighted_CE.astype(value_EH.dtype), value_EH, 0)
        mixed_CH += dot(weights_CE.astype(value_EH.dtype), value_dot[tiling.at(j), :], 0)
        return mixed_CH, total_C1 + weighted_CE.sum(axis=1, keepdims=True)

    start = jnp.zeros(query_CH.shape, dtype), jnp.zeros((tiling.block, 1), dtype)
    mixed_CH, total_C1 = tiling.keys(step, start)
    out_dot[...] = (mixed_CH - total_C1 * out[...].astype(dtype)).astype(out_dot.dtype)
    normalizer_dot[...] = total_C1.reshape(normalizer_dot.shape)
