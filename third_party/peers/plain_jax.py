"""Plain JAX peer: `jax.grad` through a Python loop of `jax.grad` and optax."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from third_party.peers import problem


def weight_gradient(
    size: problem.Size, data: problem.Data, optimizer: optax.GradientTransformation, num_steps: int, remat: str = "none"
) -> jax.Array:
    """Computes dL_out/dw, [M], without `mass_jax.metagrad`."""
    losses_of = problem.example_losses(size, data.base, remat)

    def outer(weights_M: jax.Array) -> jax.Array:
        def inner(params: Any) -> jax.Array:
            return jnp.dot(weights_M, losses_of(params, data.tokens_MT))

        params, state = data.params, optimizer.init(data.params)
        for _ in range(num_steps):
            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimizer.update(jax.grad(inner)(params), state, params)
                params = optax.apply_updates(params, updates)
        return jnp.mean(losses_of(params, data.outer_BT))

    return jax.grad(outer)(data.weights_M)
