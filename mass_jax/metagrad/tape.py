"""How a sweep remembers its trajectory: every step, or about sqrt(K) states and the rest recomputed.

Each tape has `forward(state) -> (state, losses_K, record)` and `backward(cotangents, record, to_start) -> (cotangents,
alignment_KM)`; without `to_start` the Hessian product of the first step, which nobody would use, is left out.
Letters: K inner steps, M examples.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from mass_jax.metagrad import inner, trees
from mass_jax.metagrad.sweep import Cotangents, Sweep


@dataclasses.dataclass(frozen=True)
class Whole:
    """Keeps all steps first, ..., first + count - 1."""

    sweep: Sweep
    first: Any
    count: int

    def forward(self, state: inner.InnerState) -> tuple[inner.InnerState, jax.Array, Any]:
        return self.sweep.forward(state, self.first, self.count)

    def backward(self, cotangents: Cotangents, record: Any, to_start: bool) -> tuple[Cotangents, Any]:
        sweep = self.sweep
        if to_start or not sweep.hessian:
            return sweep.backward(cotangents, record, self.first, 0, self.count)
        parts = []
        if self.count > 1:
            cotangents, rest = sweep.backward(cotangents, record, self.first, 1, self.count)
            parts.append(rest)
        cotangents, head = sweep.back(cotangents, trees.take(record, 0), self.first, hessian=False)
        return cotangents, join([jax.tree.map(lambda leaf: leaf[None], head), *parts])


@dataclasses.dataclass(frozen=True)
class Segments:
    """Keeps the starts of segments, `length` steps each, and runs each segment forward once more."""

    sweep: Sweep
    first: int
    count: int
    length: int

    def forward(self, state: inner.InnerState) -> tuple[inner.InnerState, jax.Array, Any]:
        def segment(state: inner.InnerState, start: jax.Array) -> tuple[inner.InnerState, Any]:
            new, losses, _ = self.sweep.forward(state, start, self.length, store=False)
            return new, (state, losses)

        state, (starts, losses) = jax.lax.scan(segment, state, self._begins())
        return state, losses.reshape(-1), starts

    def backward(self, cotangents: Cotangents, record: Any, to_start: bool) -> tuple[Cotangents, Any]:
        def segment(cotangents: Cotangents, start_and_begin: Any) -> tuple[Cotangents, Any]:
            start, begin = start_and_begin
            _, _, kept = self.sweep.forward(start, begin, self.length)
            return self.sweep.backward(cotangents, kept, begin, 0, self.length)

        cotangents, alignment = jax.lax.scan(segment, cotangents, (record, self._begins()), reverse=True)
        return cotangents, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), alignment)

    def _begins(self) -> jax.Array:
        return self.first + jnp.arange(0, self.count, self.length)


@dataclasses.dataclass(frozen=True)
class Chain:
    """Tapes one after another."""

    parts: tuple[Any, ...]

    def forward(self, state: inner.InnerState) -> tuple[inner.InnerState, jax.Array, Any]:
        losses, records = [], []
        for part in self.parts:
            state, losses_K, record = part.forward(state)
            losses.append(losses_K)
            records.append(record)
        return state, jnp.concatenate(losses), records

    def backward(self, cotangents: Cotangents, record: Any, to_start: bool) -> tuple[Cotangents, Any]:
        alignments: list[Any] = []
        for index in reversed(range(len(self.parts))):
            part_to_start = to_start or index > 0
            cotangents, alignment = self.parts[index].backward(cotangents, record[index], part_to_start)
            alignments.insert(0, alignment)
        return cotangents, join(alignments)


def square_root(sweep: Sweep, first: int, count: int) -> Chain:
    """One step, then segments of about sqrt(K) steps, then what is left over."""
    length = max(1, math.isqrt(count - 1))
    whole = (count - 1) - (count - 1) % length
    parts: list[Any] = [Whole(sweep, first, 1)]
    if whole:
        parts.append(Segments(sweep, first + 1, whole, length))
    if whole < count - 1:
        parts.append(Whole(sweep, first + 1 + whole, count - 1 - whole))
    return Chain(tuple(parts))


def join(alignments: list[Any]) -> Any:
    """Joins alignments along the axis of steps; None stays None."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *alignments)
