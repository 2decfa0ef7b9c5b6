"""Linear layers of the model: products with bfloat16 operands against float32 ones."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.errors import UserError
from mass_jax.llama import Llama, lora, losses
from mass_jax.types import Adapter


def test_half_products_point_where_float32_points(config, make_params, make_adapter, tokens_BT):
    """Gradients and products with the Hessian have a cosine near 1; float32 weights and adapters stay float32."""
    params, adapter, direction = make_params(config), make_adapter(config), make_adapter(config, seed=5)

    def derivatives(**changes):
        model = Llama(dataclasses.replace(config, **changes))

        def loss(adapter):
            return jnp.mean(losses.token_nll(model, lora.variables(params, adapter), tokens_BT))

        return jax.jit(lambda a: jax.jvp(jax.grad(loss), (a,), (direction,)))(adapter)

    exact, half = derivatives(), derivatives(half_products=True, remat="dots")
    for one, other in zip(exact, half, strict=True):
        a, b = (jax.flatten_util.ravel_pytree(tree)[0] for tree in (one, other))
        assert a.dtype == b.dtype == jnp.float32
        assert not np.array_equal(a, b)
        assert jnp.vdot(a, b) / jnp.linalg.norm(a) / jnp.linalg.norm(b) > 0.999


def test_half_products_need_float32_activations(config):
    assert dataclasses.replace(config, half_products=True).dtype == "float32"
    with pytest.raises(UserError, match="half_products needs activations in float32, but dtype is 'bfloat16'"):
        dataclasses.replace(config, dtype="bfloat16", half_products=True)


def test_half_adapters_multiply_in_bfloat16_in_every_mode(config, make_params, tokens_BT):
    """No product with an adapter has float32 operands, in the program for a GPU."""
    model = Llama(dataclasses.replace(config, half_adapters=True, remat="block"))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), make_params(config))
    adapters = jax.vmap(lambda key: lora.init(key, config, rank=5).leaves)(jax.random.split(jax.random.key(0), 2))

    def loss(leaves):
        return jnp.mean(losses.token_nll(model, lora.variables(params, Adapter(leaves)), tokens_BT))

    def product(leaves):
        return jax.jvp(jax.grad(loss), (leaves,), (leaves,))

    text = jax.jit(jax.vmap(product)).trace(adapters).lower(lowering_platforms=("cuda",)).as_text()
    operands = re.findall(r"dot_general.*: \(tensor<(\S+)>, tensor<(\S+)>\)", text)
    of_adapters = [pair for pair in operands if {"5", "10", "15"} & {*"x".join(pair).split("x")}]  # one to three terms
    assert len(of_adapters) > 20
    assert all(shape.endswith("bf16") for pair in of_adapters for shape in pair)
