"""Tiles of the Pallas kernels of attention: loops over those that a program needs, and what the kernels share.

A program computes one tile, of queries or of keys, for one head. Sums are at least float32; operands of products are in
the inputs' dtype. Bodies over queries compute scores [C, E], bodies over keys scores [E, C], so that the statistics of
queries are columns in the former and rows in the latter.

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

AXIS = 3  # of the grid (rows, key-value heads, group, tiles)


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
        end = self.first + (pl.program_id(AXIS) + 1) * self.block
        tiles = jax.lax.div(end + (self.block - 1), np.int32(self.block))
        return jax.lax.fori_loop(0, jnp.minimum(tiles, self.key_tiles), body, carry)

    def queries(self, body: Callable[..., Any], carry: Any) -> Any:
        """Folds `body(tile of queries, carry)` over the tiles that see this program's keys."""
        start = jnp.maximum(pl.program_id(AXIS) * self.block - self.first, 0)
        return jax.lax.fori_loop(jax.lax.div(start, np.int32(self.block)), self.query_tiles, body, carry)

    def at(self, tile: Any) -> Any:
        """Returns the positions of a tile within its array."""
        return pl.ds(tile * self.block, self.block)

    def causal(self, query_tile: Any, key_tile: Any, query_axis: int) -> jax.Array:
        """Returns booleans [C, E] or [E, C]: whether a key is at or before a query."""
        query, key = (
            jax.lax.broadcasted_iota(jnp.int32, (self.block,) * 2, axis) for axis in (query_axis, 1 - query_axis)
        )
        return key_tile * self.block + key <= self.first + query_tile * self.block + query


def dot(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    """Multiplies a [m, n] with b [n, l], or with b [l, n] if `axis` is 1."""
    return jax.lax.dot_general(a, b, (((1,), (axis,)), ((), ())), preferred_element_type=wide(a.dtype))


def column(ref: Any) -> jax.Array:
    """Reads statistics of a tile, stored as a row, as a column."""
    return ref[...].reshape(-1, 1)


def weights_of(
    tiling: Tiling, query_CH: jax.Array, key_EH: jax.Array, visible: Any, normalizer_C1: jax.Array, at: tuple[Any, Any]
) -> jax.Array:
    """Returns p of a tile [C, E]."""
    seen_CE = tiling.causal(*at, 0) & (visible[:, tiling.at(at[1])] != 0)
    return jnp.where(seen_CE, jnp.exp(tiling.scale * dot(query_CH, key_EH, 1) - normalizer_C1), 0.0)
