"""Reverse mode through the unrolled inner loop, with rematerialization policies."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mass_jax.metagrad import inner, trees
from mass_jax.metagrad.adjoints.base import Adjoint, Aux, BilevelProblem, MetaGradient, check_remat
from mass_jax.metagrad.trees import PyTree

ReverseRemat = Literal["none", "step", "save_grads", "recursive"]
_INNER_GRADIENT = "inner_gradient"


@dataclasses.dataclass(frozen=True)
class ReverseUnroll(Adjoint):
    """Exact reverse mode through the unrolled loop, as in plain JAX; it differentiates each backward pass again.

    Memory: K (P + several A) for "none", which also stores residuals of the backward passes; K P + several A for
    "step"; K more gradients for "save_grads"; 2 sqrt(K) P + several A for "recursive". Time: about 2 (K + 1) for
    "none", plus K for "step" and 2 K for "recursive".

    Attributes:
        remat: "none"; "step" recomputes each step in the backward pass; "save_grads" does too, but stores the inner
            gradients; "recursive" stores sqrt(K) states.

    Source: Maclaurin et al. 2015 (arXiv:1502.03492) for the unrolled loop; Chen et al. 2016 (arXiv:1604.06174) for
    square-root checkpointing.
    """

    remat: ReverseRemat = "none"

    def __post_init__(self) -> None:
        check_remat(self.remat, ReverseRemat)

    def apply(self, problem: BilevelProblem) -> MetaGradient:
        """Differentiates the unrolled loop with `jax.value_and_grad`."""
        active, rest = trees.split(problem.meta)

        def unrolled(active: PyTree, params: PyTree) -> tuple[jax.Array, Aux]:
            adapted, losses_K = _unroll(problem.loop, params, trees.merge(active, rest), problem.batch, self.remat)
            value, outer_aux = problem.outer_loss(adapted)
            return value, Aux(adapted, losses_K, outer_aux, None)

        argnums = (0, 1) if problem.wrt_params else (0,)
        (value, aux), grads = jax.value_and_grad(unrolled, argnums, has_aux=True)(active, problem.params)
        meta = trees.fill_integers(grads[0], problem.meta)
        return MetaGradient(value, meta, grads[1] if problem.wrt_params else None, aux)


def _unroll(loop: inner.InnerLoop, params: PyTree, meta: PyTree, batch: PyTree, remat: str) -> tuple[PyTree, jax.Array]:
    """Runs the loop; returns adapted parameters and losses_K."""

    def step(state: inner.InnerState, index: jax.Array) -> tuple[inner.InnerState, jax.Array]:
        value, grads = jax.value_and_grad(loop.loss)(state.params, meta, loop.at(batch, index))
        grads = checkpoint_name(grads, _INNER_GRADIENT)
        return loop.update(grads, state, meta), value

    state, losses_K = _scan(step, loop.start(params, meta), loop.num_steps, remat)
    return state.params, losses_K


def _scan(step: Callable[..., Any], state: PyTree, count: int, remat: str) -> tuple[Any, jax.Array]:
    """Scans `step` over step indices under a rematerialization policy."""
    if remat == "none":
        return jax.lax.scan(step, state, jnp.arange(count))
    if remat == "save_grads":
        policy = jax.checkpoint_policies.save_only_these_names(_INNER_GRADIENT)
        return jax.lax.scan(jax.checkpoint(step, policy=policy, prevent_cse=False), state, jnp.arange(count))
    rematerialized = jax.checkpoint(step, prevent_cse=False)
    if remat == "step":
        return jax.lax.scan(rematerialized, state, jnp.arange(count))
    length = math.isqrt(count)
    whole = count - count % length

    def segment(state: PyTree, indices: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.scan(rematerialized, state, indices)

    indices = jnp.arange(whole).reshape(-1, length)
    state, losses = jax.lax.scan(jax.checkpoint(segment, prevent_cse=False), state, indices)
    if whole == count:
        return state, losses.reshape(-1)
    state, last = jax.lax.scan(rematerialized, state, jnp.arange(whole, count))
    return state, jnp.concatenate([losses.reshape(-1), last])
