r"""Bodies of the Pallas kernels of attention's backward pass and of its tangents.

In the notation of `kernel_forward`, with a cotangent :math:`\bar o` and :math:`D_i = \bar o_i \cdot o_i`, the backward
pass (Dao et al. 2022, appendix B) is

.. math::

    \bar s_{ij} = p_{ij} (\bar o_i \cdot v_j - D_i), \quad \bar q_i = \sum_j \bar s_{ij} k_j / \sqrt{H}, \quad
    \bar k_j = \sum_i \bar s_{ij} q_i / \sqrt{H}, \quad \bar v_j = \sum_i p_{ij} \bar o_i.

Its tangents, with e the tangent of :math:`\bar o` and :math:`\dot D_i = e_i \cdot o_i + \bar o_i \cdot \dot o_i`, are

.. math::

    \dot{\bar s}_{ij} &= p_{ij} \left((\dot s_{ij} - \dot L_i) (\bar o_i \cdot v_j - D_i)
        + e_i \cdot v_j + \bar o_i \cdot \dot v_j - \dot D_i\right), \\
    \dot{\bar q}_i &= \sum_j (\dot{\bar s}_{ij} k_j + \bar s_{ij} \dot k_j) / \sqrt{H}, \\
    \dot{\bar k}_j &= \sum_i (\dot{\bar s}_{ij} q_i + \bar s_{ij} \dot q_i) / \sqrt{H}, \quad
    \dot{\bar v}_j = \sum_i p_{ij} \left((\dot s_{ij} - \dot L_i) \bar o_i + e_i\right).

Shape suffixes as in `kernel_tiles`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from mass_jax.llama.kernel_tiles import AXIS, Tiling, column, dot, weights_of


def backward_queries(
    tiling: Tiling,
    query: Any,
    key: Any,
    value: Any,
    visible: Any,
    normalizer: Any,
    delta: Any,
    out_bar: Any,
    query_bar: Any,
) -> None:
    """Computes the cotangents of a tile of queries; `delta` is D."""
    query_CH, out_bar_CH, normalizer_C1, delta_C1 = query[...], out_bar[...], column(normalizer), column(delta)
    tile = pl.program_id(AXIS)

    def step(j: Any, bar_CH: jax.Array) -> jax.Array:
        key_EH = key[tiling.at(j), :]
        weights_CE = weights_of(tiling, query_CH, key_EH, visible, normalizer_C1, (tile, j))
        scores_bar_CE = weights_CE * (dot(out_bar_CH, value[tiling.at(j), :], 1) - delta_C1)
        return bar_CH + dot(scores_bar_CE.astype(key_EH.dtype), key_EH, 0)

    bar_CH = tiling.keys(step, jnp.zeros(query_CH.shape, normalizer_C1.dtype))
    query_bar[...] = (tiling.scale * bar_CH).astype(query_bar.dtype)


def backward_keys(
    tiling: Tiling,
    query: Any,
    key: Any,
    value: Any,
    normalizer: Any,
    delta: Any,
    out_bar: Any,
    key_bar: Any,
    value_bar: Any,
) -> None:
    """Computes the cotangents of a tile of keys and values as if they were visible, for one head of the group."""
    key_EH, value_EH, tile = key[...], value[...], pl.program_id(AXIS)

    def step(i: Any, carry: Any) -> Any:
        key_bar_EH, value_bar_EH = carry
        query_CH, out_bar_CH = query[tiling.at(i), :], out_bar[tiling.at(i), :]
        seen_EC = tiling.causal(i, tile, 1)
        scores_EC = tiling.scale * dot(key_EH, query_CH, 1) - normalizer[:, tiling.at(i)]
        weights_EC = jnp.where(seen_EC, jnp.exp(scores_EC), 0.0)
        scores_bar_EC = weights_EC * (dot(value_EH, out_bar_CH, 1) - delta[:, tiling.at(i)])
        key_bar_EH += dot(scores_bar_EC.astype(query_CH.dtype), query_CH, 0)
        return key_bar_EH, value_bar_EH + dot(weights_EC.astype(out_bar_CH.dtype), out_bar_CH, 0)

    zeros_EH = jnp.zeros(key_EH.shape, key_bar.dtype)
    key_bar_EH, value_bar_EH = tiling.queries(step, (zeros_EH, zeros_EH))
    key_bar[...], value_bar[...] = tiling.scale * key_bar_EH, value_bar_EH


def backward_tangent_queries(
    tiling: Tiling,
    query: Any,
    key: Any,
    value: Any,
    visible: Any,
    normalizer: Any,
    delta: Any,
    out_bar: Any,
    query_dot: Any,
    key_dot: Any,
    value_dot: Any,
    normalizer_dot: Any,
    delta_dot: Any,
    out_bar_dot: Any,
    query_bar_dot: Any,
) -> None:
    """Computes the tangents of `backward_queries`."""
    query_CH, out_bar_CH, query_dot_CH, out_bar_dot_CH = query[...], out_bar[...], query_dot[...], out_bar_dot[...]
    normalizer_C1, delta_C1 = column(normalizer), column(delta)
    normalizer_dot_C1, delta_dot_C1 = column(normalizer_dot), column(delta_dot)
    tile = pl.program_id(AXIS)

    def step(j: Any, bar_CH: jax.Array) -> jax.Array:
        key_EH, value_EH, key_dot_EH = key[tiling.at(j), :], value[tiling.at(j), :], key_dot[tiling.at(j), :]
        weights_CE = weights_of(tiling, query_CH, key_EH, visible, normalizer_C1, (tile, j))
        scores_dot_CE = tiling.scale * (dot(query_dot_CH, key_EH, 1) + dot(query_CH, key_dot_EH, 1))
        inner_CE = dot(out_bar_CH, value_EH, 1) - delta_C1
        inner_dot_CE = dot(out_bar_dot_CH, value_EH, 1) + dot(out_bar_CH, value_dot[tiling.at(j), :], 1) - delta_dot_C1
        scores_bar_dot_CE = weights_CE * ((scores_dot_CE - normalizer_dot_C1) * inner_CE + inner_dot_CE)
        bar_CH += dot(scores_bar_dot_CE.astype(key_EH.dtype), key_EH, 0)
        return bar_CH + dot((weights_CE * inner_CE).astype(key_EH.dtype), key_dot_EH, 0)

    bar_CH = tiling.keys(step, jnp.zeros(query_CH.shape, normalizer_C1.dtype))
    query_bar_dot[...] = (tiling.scale * bar_CH).astype(query_bar_dot.dtype)


def backward_tangent_keys(
    tiling: Tiling,
    query: Any,
    key: Any,
    value: Any,
    normalizer: Any,
    delta: Any,
    out_bar: Any,
    query_dot: Any,
    key_dot: Any,
    value_dot: Any,
    normalizer_dot: Any,
    delta_dot: Any,
    out_bar_dot: Any,
    key_bar_dot: Any,
    value_bar_dot: Any,
) -> None:
    """Computes the tangents of `backward_keys`."""
    key_EH, value_EH, key_dot_EH, value_dot_EH = key[...], value[...], key_dot[...], value_dot[...]
    tile = pl.program_id(AXIS)

    def step(i: Any, carry: Any) -> Any:
        key_bar_EH, value_bar_EH = carry
        at = tiling.at(i)
        query_CH, out_bar_CH, query_dot_CH, out_bar_dot_CH = (
            query[at, :],
            out_bar[at, :],
            query_dot[at, :],
            out_bar_dot[at, :],
        )
        seen_EC = tiling.causal(i, tile, 1)
        scores_EC = tiling.scale * dot(key_EH, query_CH, 1) - normalizer[:, at]
        weights_EC = jnp.where(seen_EC, jnp.exp(scores_EC), 0.0)
        scores_dot_EC = (
            tiling.scale * (dot(key_EH, query_dot_CH, 1) + dot(key_dot_EH, query_CH, 1)) - normalizer_dot[:, at]
        )
        inner_EC = dot(value_EH, out_bar_CH, 1) - delta[:, at]
        inner_dot_EC = dot(value_EH, out_bar_dot_CH, 1) + dot(value_dot_EH, out_bar_CH, 1) - delta_dot[:, at]
        scores_bar_dot_EC = weights_EC * (scores_dot_EC * inner_EC + inner_dot_EC)
        key_bar_EH += dot(scores_bar_dot_EC.astype(query_CH.dtype), query_CH, 0)
        key_bar_EH += dot((weights_EC * inner_EC).astype(query_CH.dtype), query_dot_CH, 0)
        value_bar_EH += dot((weights_EC * scores_dot_EC).astype(out_bar_CH.dtype), out_bar_CH, 0)
        return key_bar_EH, value_bar_EH + dot(weights_EC.astype(out_bar_CH.dtype), out_bar_dot_CH, 0)

    zeros_EH = jnp.zeros(key_EH.shape, key_bar_dot.dtype)
    key_bar_EH, value_bar_EH = tiling.queries(step, (zeros_EH, zeros_EH))
    key_bar_dot[...], value_bar_dot[...] = tiling.scale * key_bar_EH, value_bar_EH
