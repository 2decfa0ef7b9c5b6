"""Blockwise attention is attention, in every derivative, in memory linear in the length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama import attention


def _inputs(length: int, rows: int = 2):
    keys = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(keys[0], (rows, length, 2, 3, 4))
    return query, *(jax.random.normal(key, (rows, length, 2, 4)) for key in keys[1:])


@pytest.mark.parametrize(("length", "block"), [(12, 4), (13, 4), (7, 3), (5, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_blockwise_equals_naive_in_every_derivative(x64, assert_close, length, block, masked):
    inputs = _inputs(length)
    mask_BT = jnp.arange(length) < jnp.array([[length], [length - 2]]) if masked else None
    positions_T = jnp.arange(length)

    def naive(*qkv):
        return jnp.sum(jnp.sin(attention.attend(*qkv, attention.causal(positions_T, positions_T, mask_BT))))

    def blockwise(*qkv):
        return jnp.sum(jnp.sin(attention.blockwise(*qkv, mask_BT, block=block)))

    for transform in (
        lambda f: jax.jit(lambda *p: jax.jvp(f, p, p))(*inputs),  # value and forward derivative
        lambda f: jax.jit(lambda *p: jax.jvp(jax.grad(f, (0, 1, 2)), p, p))(*inputs),  # gradient and its derivative
    ):
        assert_close(transform(blockwise), transform(naive), 1e-12)


def _temporaries(length: int) -> int:
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in jax.eval_shape(lambda: _inputs(length, rows=1))]

    def step(*qkv):
        def loss(*qkv):
            return jnp.sum(attention.blockwise(*qkv, None, block=256))

        return jax.jvp(jax.grad(loss, (0, 1, 2)), qkv, qkv)

    return jax.jit(step).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_linearly_with_the_length():
    lengths = [1024, 2048, 4096, 8192]
    exponent = np.polyfit(np.log(lengths), np.log([_temporaries(length) for length in lengths]), 1)[0]
    assert exponent < 1.2
