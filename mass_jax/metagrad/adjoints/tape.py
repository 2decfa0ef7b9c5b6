"""Tapes store a sweep's trajectory: every step, or about sqrt(K) states at a time with the rest recomputed.

Shape suffixes: K inner steps, M examples.
"""

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mass_jax.metagrad import inner, trees
from mass_jax.metagrad.adjoints.sweep import Cotangents, StepRecord, Sweep, no_record
from mass_jax.metagrad.trees import PyTree


class Tape(Protocol):
    """Forward and backward passes over consecutive inner steps."""

    def forward(self, state: inner.InnerState) -> tuple[inner.InnerState, jax.Array, Any]:
        """Runs the steps; returns the last state, losses_K, and the record for `backward`."""

    def backward(self, cotangents: Cotangents, record: PyTree, to_start: bool) -> tuple[Cotangents, jax.Array | None]:
        """Moves cotangents back over the steps; also returns alignment_KM, or None.

        Without `to_start`, the Hessian product of the first step is skipped, because its result would not be used.
        """


@dataclasses.dataclass(frozen=True)
class Full:
    """Stores every step of first, ..., first + count - 1."""

    sweep: Sweep
    first: Any
    count: int

    def forward(self, state: inner.InnerState) -> tuple[inner.InnerState, jax.Array, Any]:
        """See `Tape`."""
        return self.sweep.forward(state, self.first, self.count, self.sweep.record)

    def backward(self, cotangents: Cotangents, record: PyTree, to_start: bool) -> tuple[Cotangents, jax.Array | None]:
        """See `Tape`."""
        sweep = self.sweep
        if to_start or not sweep.hessian:
            return sweep.backward(cotangents, record, self.first, 0, self.count)
        parts = []
        if self.count > 1:
            cotangents, rest = sweep.backward(cotangents, record, self.first, 1, self.count)
            parts.append(rest)
        cotangents, head = sweep.step_back(cotangents, trees.take(record, 0), self.first, hessian=False)
        return cotangents, join([jax.tree.map(lambda leaf: leaf[None], head), *parts])


@dataclasses.dataclass(frozen=True)
class Segments:
    """Stores the first state of each segment of `length` steps; the backward pass reruns one segment at a time."""

    sweep: Sweep
    first: int
    count: int
    length: int

    def forward(self, state: inner.InnerState) -> tuple[inner.InnerState, jax.Array, Any]:
        """See `Tape`."""

        def segment(state: inner.InnerState, start: jax.Array) -> tuple[inner.InnerState, Any]:
            new, losses, _ = self.sweep.forward(state, start, self.length, no_record)
            return new, (state, losses)

        state, (states, losses) = jax.lax.scan(segment, state, self._starts())
        return state, losses.reshape(-1), states

    def backward(self, cotangents: Cotangents, record: PyTree, to_start: bool) -> tuple[Cotangents, jax.Array | None]:
        """See `Tape`."""

        def segment(cotangents: Cotangents, stored_and_start: PyTree) -> tuple[Cotangents, jax.Array | None]:
            stored, start = stored_and_start
            records = self.sweep.forward(stored, start, self.length, self.sweep.record)[2]
            return self.sweep.backward(cotangents, records, start, 0, self.length)

        cotangents, alignment = jax.lax.scan(segment, cotangents, (record, self._starts()), reverse=True)
        return cotangents, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), alignment)

    def _starts(self) -> jax.Array:
        return self.first + jnp.arange(0, self.count, self.length)


@dataclasses.dataclass(frozen=True)
class Replayed(Segments):
    """Stores the first state and every inner gradient, so that no gradient is computed twice.

    The backward pass handles one segment at a time: it repeats the updates from the first state on, K / 2 on average,
    and keeps the states of the segment's steps.
    """

    def forward(self, state: inner.InnerState) -> tuple[inner.InnerState, jax.Array, Any]:
        """See `Tape`."""
        new, losses, grads = self.sweep.forward(state, self.first, self.count, lambda _, grads: grads)
        return new, losses, (state, grads)

    def backward(self, cotangents: Cotangents, record: PyTree, to_start: bool) -> tuple[Cotangents, jax.Array | None]:
        """See `Tape`."""
        first_state, grads = record

        # Steps index the gradients of all steps; slicing those of a segment would copy them.
        def after(index: jax.Array, state: inner.InnerState) -> inner.InnerState:
            return self.sweep.loop.update(trees.take(grads, index), state, self.sweep.meta)

        def step_back(carry: Cotangents, state_and_index: PyTree) -> tuple[Cotangents, jax.Array | None]:
            state, index = state_and_index
            record = StepRecord(state, trees.take(grads, index))
            return self.sweep.step_back(carry, record, self.first + index, self.sweep.hessian)

        def segment(cotangents: Cotangents, start: jax.Array) -> tuple[Cotangents, jax.Array | None]:
            state, steps = jax.lax.fori_loop(0, start, after, first_state), start + jnp.arange(self.length)
            states = jax.lax.scan(lambda state, index: (after(index, state), state), state, steps)[1]
            return jax.lax.scan(step_back, cotangents, (states, steps), reverse=True)

        starts = jnp.arange(0, self.count, self.length)
        cotangents, alignment = jax.lax.scan(segment, cotangents, starts, reverse=True)
        return cotangents, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), alignment)


@dataclasses.dataclass(frozen=True)
class Chain:
    """Concatenation of tapes."""

    parts: tuple[Tape, ...]

    def forward(self, state: inner.InnerState) -> tuple[inner.InnerState, jax.Array, Any]:
        """See `Tape`."""
        losses, records = [], []
        for part in self.parts:
            state, losses_K, record = part.forward(state)
            losses.append(losses_K)
            records.append(record)
        return state, jnp.concatenate(losses), records

    def backward(self, cotangents: Cotangents, record: PyTree, to_start: bool) -> tuple[Cotangents, jax.Array | None]:
        """See `Tape`."""
        alignments: list[Any] = []
        for index in reversed(range(len(self.parts))):
            part_to_start = to_start or index > 0
            cotangents, alignment = self.parts[index].backward(cotangents, record[index], part_to_start)
            alignments.insert(0, alignment)
        return cotangents, join(alignments)


def square_root(sweep: Sweep, first: int, count: int, segments: type[Segments]) -> Chain:
    """Builds a tape of one step, about sqrt(K) segments of equal length, and the remaining steps."""
    length = max(1, math.isqrt(count - 1))
    whole = (count - 1) - (count - 1) % length
    parts: list[Tape] = [Full(sweep, first, 1)]
    if whole:
        parts.append(segments(sweep, first + 1, whole, length))
    if whole < count - 1:
        parts.append(Full(sweep, first + 1 + whole, count - 1 - whole))
    return Chain(tuple(parts))


def join(alignments: list[Any]) -> Any:
    """Concatenates alignments along the step axis; None stays None."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *alignments)
