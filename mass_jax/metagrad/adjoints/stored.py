"""Tape whose records leave the device: device memory does not grow with the number of steps.

Shape suffixes: K inner steps, M examples.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mass_jax.metagrad import inner
from mass_jax.metagrad.adjoints.sweep import Cotangents, Sweep
from mass_jax.metagrad.adjoints.tape import join
from mass_jax.metagrad.store import Store
from mass_jax.metagrad.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class Stored:
    """Stores every step of first, ..., first + count - 1 in a `Store`."""

    sweep: Sweep
    first: int
    count: int
    store: Store

    def forward(self, state: inner.InnerState) -> tuple[inner.InnerState, jax.Array, Any]:
        """See `Tape`."""
        sweep = self.sweep
        record = jax.eval_shape(lambda state: sweep.record(state, state.params), state)
        trajectory = Trajectory.of(self.store, self.count, record)

        def step(carry: tuple[inner.InnerState, jax.Array], index: jax.Array) -> tuple[Any, jax.Array]:
            state, token = carry
            context = sweep.loop.at(sweep.context, self.first + index)
            value, grads = sweep.derivatives.gradient(state.params, sweep.meta, context)
            token = trajectory.write(token, index, sweep.record(state, grads))
            return (sweep.loop.update(grads, state, sweep.meta), token), value

        steps = jnp.arange(self.count, dtype=jnp.int32)
        (state, token), losses_K = jax.lax.scan(step, (state, trajectory.open()), steps)
        return state, losses_K, (trajectory, token)

    def backward(self, cotangents: Cotangents, record: Any, to_start: bool) -> tuple[Cotangents, jax.Array | None]:
        """See `Tape`."""
        sweep, (trajectory, token) = self.sweep, record

        def step(carry: tuple[Cotangents, jax.Array], index: jax.Array) -> tuple[Any, jax.Array | None]:
            token, stored = trajectory.read(carry[1], index)
            cotangents, alignment_M = sweep.step_back(carry[0], stored, self.first + index, sweep.hessian)
            return (cotangents, token), alignment_M

        start = 0 if to_start or not sweep.hessian else 1
        parts = []
        if self.count > start:
            steps = jnp.arange(start, self.count, dtype=jnp.int32)
            (cotangents, token), rest = jax.lax.scan(step, (cotangents, token), steps, reverse=True)
            parts.append(rest)
        if start:
            token, stored = trajectory.read(token, 0)
            cotangents, head = sweep.step_back(cotangents, stored, self.first, hessian=False)
            parts.insert(0, jax.tree.map(lambda leaf: leaf[None], head))
        trajectory.close(token)
        return cotangents, join(parts)
