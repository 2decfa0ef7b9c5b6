"""Kernel attention, interpreted on a CPU: equal to plain attention in every derivative."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama import Llama, attention, kernel_attention

BLOCK = 4


def _inputs(queries: int, keys: int, group: int = 2, dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = (2, queries, 2, group, 3), (2, keys, 2, 3), (2, keys, 2, 3)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def _losses(mask_BS, queries: int, keys: int):
    """Returns the same loss of kernel attention and of plain attention, over the queries that see a key."""
    positions_S = jnp.arange(keys)
    visible_BTS = attention.causal(positions_S[keys - queries :], positions_S, mask_BS)

    def loss(attend):
        def compute(*qkv):
            return jnp.sum(jnp.where(visible_BTS.any(-1)[..., None, None, None], jnp.sin(attend(*qkv)), 0))

        return compute

    return (
        loss(lambda q, k, v: kernel_attention.attend(q, k, v, mask_BS, block=BLOCK)),
        loss(lambda q, k, v: attention.attend(q, k, v, visible_BTS)),
    )


def _forward_over_reverse(loss, *points):
    return jax.jvp(jax.value_and_grad(loss, (0, 1, 2)), points, points)


def _reverse_over_reverse(loss, *points):
    def aligned(*points):
        return sum(jnp.vdot(x, jnp.cos(y)) for x, y in zip(jax.grad(loss, (0, 1, 2))(*points), points, strict=True))

    return jax.grad(aligned, (0, 1, 2))(*points)


def _forward(loss, *points):
    return jax.jvp(loss, points, points)


def _check(assert_close, derivative, queries, keys, masked):
    mask_BS = jnp.asarray(np.random.default_rng(1).random((2, keys)) < 0.7) if masked else None
    kernel, plain = _losses(mask_BS, queries, keys)
    inputs = _inputs(queries, keys)
    actual, expected = (jax.jit(lambda *p, f=f: derivative(f, *p))(*inputs) for f in (kernel, plain))
    assert_close(actual, expected, 1e-12)


def test_kernel_matches_value_gradient_and_forward_derivatives(x64, assert_close):
    _check(assert_close, _forward_over_reverse, 6, 9, True)


@pytest.mark.slow
@pytest.mark.parametrize("derivative", [_forward, _forward_over_reverse, _reverse_over_reverse])
@pytest.mark.parametrize(("queries", "keys", "masked"), [(2, 3, False), (8, 8, False), (9, 9, True), (5, 13, True)])
def test_kernel_matches_every_derivative(x64, assert_close, derivative, queries, keys, masked):
    _check(assert_close, derivative, queries, keys, masked)


def test_query_without_visible_keys_gives_zeros(x64):
    query, key, value = _inputs(3, 3)
    mask_BS = jnp.array([[False, True, True], [True, True, True]])
    out = kernel_attention.attend(query, key, value, mask_BS, block=BLOCK)
    np.testing.assert_array_equal(out[0, 0], 0)
    assert jnp.all(out[1, 0] != 0)


def test_second_tangent_is_refused_in_one_line():
    inputs = _inputs(3, 3, dtype=np.float32)
    kernel, _ = _losses(None, 3, 3)

    def tangent(*qkv):
        return jax.jvp(kernel, qkv, tuple(inputs))[1]

    for derivative in (jax.grad(tangent), lambda *qkv: jax.jvp(tangent, qkv, qkv)):
        with pytest.raises(kernel_attention.SecondTangentError, match=r"use jax\.jvp around jax\.grad") as caught:
            jax.eval_shape(derivative, *inputs)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "block"])
def test_model_with_kernels_matches_under_scan_remat_and_vmap(x64, assert_close, config, make_params, tokens_BT, remat):
    params = jax.tree.map(lambda x: x.astype(jnp.float64), make_params(config))
    mask_BT = jnp.arange(tokens_BT.shape[1]) < jnp.array([[13], [9], [11]])

    def product(kind):
        model = Llama(dataclasses.replace(config, attention=kind, remat=remat))

        def loss(params, tokens_BT):
            logits: Any = model.apply({"params": params}, tokens_BT, mask_BT)
            return jnp.sum(jnp.where(mask_BT[..., None], jnp.sin(logits), 0))

        def one(tokens_BT):
            return jax.jvp(lambda p: jax.value_and_grad(loss)(p, tokens_BT), (params,), (params,))

        return jax.jit(jax.vmap(one))(jnp.stack([tokens_BT, tokens_BT[::-1]]))

    assert_close(product("kernel"), product("xla"), 1e-10)


def _second_order_program():
    shapes = [jax.ShapeDtypeStruct(x.shape, jnp.bfloat16) for x in _inputs(200, 200, dtype=np.float32)]

    def loss(query, key, value):
        return jnp.sum(jnp.square(kernel_attention.attend(query, key, value, None).astype(jnp.float32)))

    return jax.jit(lambda *qkv: _forward_over_reverse(loss, *qkv)).trace(*shapes)


def test_kernels_lower_for_tpus_without_one():
    text = _second_order_program().lower(lowering_platforms=("tpu",)).as_text()
    names = [each for each in ("forward", "forward_tangent") if f'kernel_name = "{each}"' in text]
    names += [each for each in ("queries", "keys") if f'kernel_name = "backward_tangent_{each}"' in text]
    assert names == ["forward", "forward_tangent", "queries", "keys"]
