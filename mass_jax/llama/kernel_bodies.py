r"""Bodies of the Pallas kernels of attention: each computes one tile and loops over the tiles it depends on.

For a query i and a key j of one head with H features, where only j visible from i count,

.. math::

    s_{ij} = q_i \cdot k_j / \sqrt{H}, \quad L_i = \log \sum_j e^{s_{ij}}, \quad p_{ij} = e^{s_{ij} - L_i},
    \quad o_i = \sum_j p_{ij} v_j.

The tangents of the output o and of the log-normalizer L take one pass over the keys, since p follows from L:

.. math::

    \dot s_{ij} = (\dot q_i \cdot k_j + q_i \cdot \dot k_j) / \sqrt{H}, \quad \dot L_i = \sum_j p_{ij} \dot s_{ij}, \quad
    \dot o_i = \sum_j p_{ij} (\dot s_{ij} v_j + \dot v_j) - \dot L_i o_i.

With a cotangent :math:`\bar o` and :math:`D_i = \bar o_i \cdot o_i`, the backward pass (Dao et al. 2022, appendix B) is

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

Bodies over queries compute tiles [C, E], bodies over keys tiles [E, C], so that statistics of queries are columns in the
former and rows in the latter. Sums are at least float32; operands of products are in the inputs' dtype.

Shape suffixes: C queries of a tile, E keys of a tile, H features per head.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from mass_jax.llama.precision import wide

_AXIS = 3  # of the grid (rows, key-value heads, group, tiles)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Sizes that the bodies of a call share.

    Attributes:
        scale: factor on the scores.
        first: position of the first query among the keys.
        block: queries, and keys, of a tile.
        query_tiles: tiles of queries.
        key_tiles: tiles of keys.
    """

    scale: float
    first: int
    block: int
    query_tiles: int
    key_tiles: int

    def keys(self, body: Callable[..., Any], carry: Any) -> Any:
        """Folds `body(tile of keys, carry)` over the tiles that this program's queries see."""
        end = self.first + (pl.program_id(_AXIS) + 1) * self.block
        tiles = jax.lax.div(end + (self.block - 1), np.int32(self.block))
        return jax.lax.fori_loop(0, jnp.minimum(tiles, self.key_tiles), body, carry)

    def queries(self, body: Callable[..., Any], carry: Any) -> Any:
        """Folds `body(tile of queries, carry)` over the tiles that see this program's keys."""
        start = jnp.maximum(pl.program_id(_AXIS) * self.block - self.first, 0)
        return jax.lax.fori_loop(jax.lax.div(start, np.int32(self.block)), self.query_tiles, body, carry)

    def at(self, tile: Any) -> Any:
        """Returns the positions of a tile within its array."""
        return pl.ds(tile * self.block, self.block)

    def causal(self, query_tile: Any, key_tile: Any, query_axis: int) -> jax.Array:
        """Returns booleans [C, E] or [E, C]: whether a key is at or before a query."""
        query, key = (jax.lax.broadcasted_iota(jnp.int32, (self.block,) * 2, axis) for axis in (query_axis, 1 - query_axis))
        return key_tile * self.block + key <= self.first + query_tile * self.block + query


def _dot(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    """Multiplies a [m, n] with b [n, l], or with b [l, n] if `axis` is 1."""
    return jax.lax.dot_general(a, b, (((1,), (axis,)), ((), ())), preferred_element_type=wide(a.dtype))


def _column(ref: Any) -> jax.Array:
    """Reads statistics of a tile, stored as a row, as a column."""
    return ref[...].reshape(-1, 1)


def forward(tiling: Tiling, query: Any, key: Any, value: Any, visible: Any, out: Any, normalizer: Any) -> None:
    """Computes the output and the log-normalizer of a tile of queries; both are 0 if no key is visible."""
    query_CH, dtype, tile = query[...], wide(query.dtype), pl.program_id(_AXIS)
    hidden = 0.5 * float(jnp.finfo(dtype).min)

    def step(j: Any, carry: Any) -> Any:
        mixed_CH, top_C1, total_C1 = carry
        value_EH = value[tiling.at(j), :]
        seen_CE = tiling.causal(tile, j, 0) & (visible[:, tiling.at(j)] != 0)
        scores_CE = jnp.where(seen_CE, tiling.scale * _dot(query_CH, key[tiling.at(j), :], 1), hidden)
        new_C1 = jnp.maximum(top_C1, scores_CE.max(axis=1, keepdims=True))
        powers_CE = jnp.where(seen_CE, jnp.exp(scores_CE - new_C1), 0.0)
        decay_C1 = jnp.exp(top_C1 - new_C1)
        mixed_CH = mixed_CH * decay_C1 + _dot(powers_CE.astype(value_EH.dtype), value_EH, 0)
        return mixed_CH, new_C1, total_C1 * decay_C1 + powers_CE.sum(axis=1, keepdims=True)

    column = (tiling.block, 1)
    start = jnp.zeros(query_CH.shape, dtype), jnp.full(column, hidden, dtype), jnp.zeros(column, dtype)
    mixed_CH, top_C1, total_C1 = tiling.keys(step, start)
    divisor_C1 = jnp.where(total_C1 > 0, total_C1, 1.0)
    out[...] = (mixed_CH / divisor_C1).astype(out.dtype)
    logs_C1 = jnp.where(total_C1 > 0, top_C1 + jnp.log(divisor_C1), 0.0)
    normalizer[...] = logs_C1.reshape(normalizer.shape)


def _weights(tiling: Tiling, query_CH: jax.Array, key_EH: jax.Array, visible: Any, normalizer_C1: jax.Array, at: tuple[Any, Any]) -> jax.Array:
    """Returns p of a tile [C, E]."""
    seen_CE = tiling.causal(*at, 0) & (visible[:, tiling.at(at[1])] != 0)
    return jnp.where(seen_CE, jnp.exp(tiling.scale * _dot(query_CH, key_EH, 1) - normalizer_C1), 0.0)


def forward_tangent(
    tiling: Tiling,
    query: Any, key: Any, value: Any, visible: Any, out: Any, normalizer: Any,
    query_dot: Any, key_dot: Any, value_dot: Any,
    out_dot: Any, normalizer_dot: Any,
) -> None:
    """Computes the tangents of `forward`."""
    query_CH, query_dot_CH, normalizer_C1 = query[...], query_dot[...], _column(normalizer)
    dtype, tile = normalizer_C1.dtype, pl.program_id(_AXIS)

    def step(j: Any, carry: Any) -> Any:
        mixed_CH, total_C1 = carry
        key_EH, value_EH = key[tiling.at(j), :], value[tiling.at(j), :]
        weights_CE = _weights(tiling, query_CH, key_EH, visible, normalizer_C1, (tile, j))
        scores_dot_CE = tiling.scale * (_dot(query_dot_CH, key_EH, 1) + _dot(query_CH, key_dot[tiling.at(j), :], 1))
        weighted_CE = weights_CE * scores_dot_CE
        mixed_CH += _dot(weighted_CE.astype(value_EH.dtype), value_EH, 0)
        mixed_CH += _dot(weights_CE.astype(value_EH.dtype), value_dot[tiling.at(j), :], 0)
        return mixed_CH, total_C1 + weighted_CE.sum(axis=1, keepdims=True)

    start = jnp.zeros(query_CH.shape, dtype), jnp.zeros((tiling.block, 1), dtype)
    mixed_CH, total_C1 = tiling.keys(step, start)
    out_dot[...] = (mixed_CH - total_C1 * out[...].astype(dtype)).astype(out_dot.dtype)
    normalizer_dot[...] = total_C1.reshape(normalizer_dot.shape)


def backward_queries(
    tiling: Tiling,
    query: Any, key: Any, value: Any, visible: Any, normalizer: Any, delta: Any, out_bar: Any,
    query_bar: Any,
) -> None:
    """Computes the cotangents of a tile of queries; `delta` is D."""
    query_CH, out_bar_CH, normalizer_C1, delta_C1 = query[...], out_bar[...], _column(normalizer), _column(delta)
    tile = pl.program_id(_AXIS)

    def step(j: Any, bar_CH: jax.Array) -> jax.Array:
        key_EH = key[tiling.at(j), :]
        weights_CE = _weights(tiling, query_CH, key_EH, visible, normalizer_C1, (tile, j))
        scores_bar_CE = weights_CE * (_dot(out_bar_CH, value[tiling.at(j), :], 1) - delta_C1)
        return bar_CH + _dot(scores_bar_CE.astype(key_EH.dtype), key_EH, 0)

    bar_CH = tiling.keys(step, jnp.zeros(query_CH.shape, normalizer_C1.dtype))
    query_bar[...] = (tiling.scale * bar_CH).astype(query_bar.dtype)


def backward_keys(
    tiling: Tiling,
    query: Any, key: Any, value: Any, normalizer: Any, delta: Any, out_bar: Any,
    key_bar: Any, value_bar: Any,
) -> None:
    """Computes the cotangents of a tile of keys and values as if they were visible, for one head of the group."""
    key_EH, value_EH, tile = key[...], value[...], pl.program_id(_AXIS)

    def step(i: Any, carry: Any) -> Any:
        key_bar_EH, value_bar_EH = carry
        query_CH, out_bar_CH = query[tiling.at(i), :], out_bar[tiling.at(i), :]
        seen_EC = tiling.causal(i, tile, 1)
        scores_EC = tiling.scale * _dot(key_EH, query_CH, 1) - normalizer[:, tiling.at(i)]
        weights_EC = jnp.where(seen_EC, jnp.exp(scores_EC), 0.0)
        scores_bar_EC = weights_EC * (_dot(value_EH, out_bar_CH, 1) - delta[:, tiling.at(i)])
        key_bar_EH += _dot(scores_bar_EC.astype(query_CH.dtype), query_CH, 0)
        return key_bar_EH, value_bar_EH + _dot(weights_EC.astype(out_bar_CH.dtype), out_bar_CH, 0)

    zeros_EH = jnp.zeros(key_EH.shape, key_bar.dtype)
    key_bar_EH, value_bar_EH = tiling.queries(step, (zeros_EH, zeros_EH))
    key_bar[...], value_bar[...] = tiling.scale * key_bar_EH, value_bar_EH


def backward_tangent_queries(
    tiling: Tiling,
    query: Any, key: Any, value: Any, visible: Any, normalizer: Any, delta: Any, out_bar: Any,
    query_dot: Any, key_dot: Any, value_dot: Any, normalizer_dot: Any, delta_dot: Any, out_bar_dot: Any,
    query_bar_dot: Any,
) -> None:
    """Computes the tangents of `backward_queries`."""
    query_CH, out_bar_CH, query_dot_CH, out_bar_dot_CH = query[...], out_bar[...], query_dot[...], out_bar_dot[...]
    normalizer_C1, delta_C1 = _column(normalizer), _column(delta)
    normalizer_dot_C1, delta_dot_C1 = _column(normalizer_dot), _column(delta_dot)
    tile = pl.program_id(_AXIS)

    def step(j: Any, bar_CH: jax.Array) -> jax.Array:
        key_EH, value_EH, key_dot_EH = key[tiling.at(j), :], value[tiling.at(j), :], key_dot[tiling.at(j), :]
        weights_CE = _weights(tiling, query_CH, key_EH, visible, normalizer_C1, (tile, j))
        scores_dot_CE = tiling.scale * (_dot(query_dot_CH, key_EH, 1) + _dot(query_CH, key_dot_EH, 1))
        inner_CE = _dot(out_bar_CH, value_EH, 1) - delta_C1
        inner_dot_CE = _dot(out_bar_dot_CH, value_EH, 1) + _dot(out_bar_CH, value_dot[tiling.at(j), :], 1) - delta_dot_C1
        scores_bar_dot_CE = weights_CE * ((scores_dot_CE - normalizer_dot_C1) * inner_CE + inner_dot_CE)
        bar_CH += _dot(scores_bar_dot_CE.astype(key_EH.dtype), key_EH, 0)
        return bar_CH + _dot((weights_CE * inner_CE).astype(key_EH.dtype), key_dot_EH, 0)

    bar_CH = tiling.keys(step, jnp.zeros(query_CH.shape, normalizer_C1.dtype))
    query_bar_dot[...] = (tiling.scale * bar_CH).astype(query_bar_dot.dtype)


def backward_tangent_keys(
    tiling: Tiling,
    query: Any, key: Any, value: Any, normalizer: Any, delta: Any, out_bar: Any,
    query_dot: Any, key_dot: Any, value_dot: Any, normalizer_dot: Any, delta_dot: Any, out_bar_dot: Any,
    key_bar_dot: Any, value_bar_dot: Any,
) -> None:
    """Computes the tangents of `backward_keys`."""
    key_EH, value_EH, key_dot_EH, value_dot_EH = key[...], value[...], key_dot[...], value_dot[...]
    tile = pl.program_id(_AXIS)

    def step(i: Any, carry: Any) -> Any:
        key_bar_EH, value_bar_EH = carry
        at = tiling.at(i)
        query_CH, out_bar_CH, query_dot_CH, out_bar_dot_CH = query[at, :], out_bar[at, :], query_dot[at, :], out_bar_dot[at, :]
        seen_EC = tiling.causal(i, tile, 1)
        scores_EC = tiling.scale * _dot(key_EH, query_CH, 1) - normalizer[:, at]
        weights_EC = jnp.where(seen_EC, jnp.exp(scores_EC), 0.0)
        scores_dot_EC = tiling.scale * (_dot(key_EH, query_dot_CH, 1) + _dot(key_dot_EH, query_CH, 1)) - normalizer_dot[:, at]
        inner_EC = _dot(value_EH, out_bar_CH, 1) - delta[:, at]
        inner_dot_EC = _dot(value_EH, out_bar_dot_CH, 1) + _dot(value_dot_EH, out_bar_CH, 1) - delta_dot[:, at]
        scores_bar_dot_EC = weights_EC * (scores_dot_EC * inner_EC + inner_dot_EC)
        key_bar_EH += _dot(scores_bar_dot_EC.astype(query_CH.dtype), query_CH, 0)
        key_bar_EH += _dot((weights_EC * inner_EC).astype(query_CH.dtype), query_dot_CH, 0)
        value_bar_EH += _dot((weights_EC * scores_dot_EC).astype(out_bar_CH.dtype), out_bar_CH, 0)
        return key_bar_EH, value_bar_EH + _dot(weights_EC.astype(out_bar_CH.dtype), out_bar_dot_CH, 0)

    zeros_EH = jnp.zeros(key_EH.shape, key_bar_dot.dtype)
    key_bar_EH, value_bar_EH = tiling.queries(step, (zeros_EH, zeros_EH))
    key_bar_dot[...], value_bar_dot[...] = tiling.scale * key_bar_EH, value_bar_EH
