"""Blockwise attention: equal to plain attention in every derivative, with memory linear in the length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama import LlamaConfig, attention


def _inputs(length: int, rows: int = 2):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((rows, length, 2, *more)) for more in ((3, 4), (4,), (4,))]


@pytest.mark.parametrize(("length", "block", "masked"), [(8, 4, True), (9, 4, True), (7, 3, False), (19, 2, True)])
def test_blockwise_matches_naive_derivatives(x64, assert_close, length, block, masked):
    inputs = _inputs(length)
    mask_BT = jnp.arange(length) < jnp.array([[length], [length - 2]]) if masked else None
    positions_T = jnp.arange(length)

    def naive(*qkv):
        return jnp.sum(jnp.sin(attention.attend(*qkv, attention.causal(positions_T, positions_T, mask_BT))))

    def blockwise(*qkv):
        return jnp.sum(jnp.sin(attention.blockwise(*qkv, mask_BT, block=block)))

    def derivatives(f):  # value, gradient, and forward derivatives of both
        return jax.jit(lambda *p: jax.jvp(jax.value_and_grad(f, (0, 1, 2)), p, p))(*inputs)

    assert_close(derivatives(blockwise), derivatives(naive), 1e-12)


def _temporaries(length: int) -> int:
    shapes = [jax.ShapeDtypeStruct((1, length, 2, *more), jnp.float32) for more in ((3, 4), (4,), (4,))]

    def step(*qkv):
        def loss(*qkv):
            return jnp.sum(attention.blockwise(*qkv, None, block=128))

        return jax.jvp(jax.grad(loss, (0, 1, 2)), qkv, qkv)

    return jax.jit(step).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def test_blockwise_memory_is_linear_in_length():
    lengths = [2048, 4096, 8192]
    exponent = np.polyfit(np.log(lengths), np.log([_temporaries(length) for length in lengths]), 1)[0]
    assert exponent < 1.2


def test_auto_attention_is_full_for_short_texts(monkeypatch):
    monkeypatch.setattr(attention, "LONG", 8)
    query, key, value = (jnp.asarray(each, jnp.float32) for each in _inputs(12))

    def compute(kind, length):
        config = LlamaConfig(attention=kind, attention_block=4)
        return attention.self_attend(config, query[:, :length], key[:, :length], value[:, :length], None)

    for length, same in ((8, "xla"), (12, "blockwise")):
        np.testing.assert_array_equal(compute("auto", length), compute(same, length))
