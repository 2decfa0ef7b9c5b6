"""Reverse mode over the unrolled inner loop, with its rematerialization policies. Letters: K inner steps."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mass_jax.metagrad import inner

INNER_GRADIENT = "inner_gradient"


def unroll(loop: inner.InnerLoop, params: Any, meta: Any, batch: Any, remat: str) -> tuple[Any, jax.Array]:
    """Adapted parameters and losses_K, as a function that reverse mode can differentiate at the policy's cost."""

    def step(state: inner.InnerState, index: jax.Array) -> tuple[inner.InnerState, jax.Array]:
        value, grads = jax.value_and_grad(loop.loss)(state.params, meta, loop.at(batch, index))
        grads = checkpoint_name(grads, INNER_GRADIENT)
        return loop.update(grads, state, meta), value

    state, losses_K = _scan(step, loop.start(params, meta), loop.num_steps, remat)
    return state.params, losses_K


def _scan(step: Callable[..., Any], state: Any, count: int, remat: str) -> tuple[Any, jax.Array]:
    if remat == "none":
        return jax.lax.scan(step, state, jnp.arange(count))
    if remat == "save_grads":
        policy = jax.checkpoint_policies.save_only_these_names(INNER_GRADIENT)
        return jax.lax.scan(jax.checkpoint(step, policy=policy, prevent_cse=False), state, jnp.arange(count))
    one = jax.checkpoint(step, prevent_cse=False)
    if remat == "step":
        return jax.lax.scan(one, state, jnp.arange(count))
    length = math.isqrt(count)
    whole = count - count % length

    def segment(state: Any, indices: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.scan(one, state, indices)

    indices = jnp.arange(whole).reshape(-1, length)
    state, losses = jax.lax.scan(jax.checkpoint(segment, prevent_cse=False), state, indices)
    state, last = jax.lax.scan(one, state, jnp.arange(whole, count))
    return state, jnp.concatenate([losses.reshape(-1), last])
