"""Matrix products with bfloat16 operands and float32 sums, in every mode and nesting of differentiation.

A product of float32 arrays that are cast to bfloat16 first is fast in the forward pass only: its transposes multiply a
float32 cotangent, so they run in float32. Here cotangents and tangents are cast too. On GPUs and TPUs,
`jax.lax.DotAlgorithmPreset.BF16_BF16_F32` does the same; XLA on CPU ignores it. A bilinear primitive with its own
transpose rules works on all of them.

Shape suffixes: B leading axes with their own matrices, M rows, K contracted, N columns.
"""

import functools
import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# Axes of the two operands that are contracted; axis 0 is the batch.
_CONTRACTED = {"nn": (2, 1), "nt": (2, 2), "tn": (1, 1)}
# Transpose rules, as functions of cotangent and other operand. nn: x w; nt: x w^T; tn: x^T w.
_OF_LEFT = {"nn": ("nt", False), "nt": ("nn", False), "tn": ("nt", True)}  # layout, and whether w comes first
_OF_RIGHT = {"nn": ("tn", False), "nt": ("tn", True), "tn": ("nn", False)}  # layout, and whether the cotangent does


def half_product(
    x: jax.Array,
    w: jax.Array,
    transposed: bool = False,
    dtype: jax.typing.DTypeLike = jnp.float32,
    split: bool = False,
) -> jax.Array:
    r"""Multiplies x w, or x w^T, with operands rounded to bfloat16 and sums in float32.

    Derivatives are products of the same kind: each of their operands is rounded to bfloat16 too. Inside
    `jax.shard_map`, only operands of the first product are: its derivatives multiply float32 cotangents.

    Args:
        x: [..., K], float32 or bfloat16.
        w: [K, N], or [N, K] if `transposed`; float32 or bfloat16. Further leading axes are shared with x, with one
            matrix for each index.
        transposed: whether to multiply by the transpose of w.
        dtype: of the result, float32 or bfloat16. A derivative has the dtype of its operand.
        split: whether float32 operands are not rounded, but split into the sum of two bfloat16 terms with 16 bits
            in all; derivatives do the same. This costs little if the float32 operands are narrow, such as adapters.

    Returns:
        [..., N].

    >>> x = jnp.array([[1.0, 2.0]])
    >>> half_product(x, jnp.array([[1.0], [1.001]])).tolist()  # 1.001 rounds to 1
    [[3.0]]
    >>> jax.grad(lambda x: half_product(x, jnp.ones((2, 3))).sum())(x).tolist()
    [[3.0, 3.0]]
    """
    layout = "nt" if transposed else "nn"
    if x.shape[: w.ndim - 2] != w.shape[:-2]:
        raise TypeError(f"leading axes of {jax.typeof(x)} and {jax.typeof(w)} do not match")
    batch = math.prod(w.shape[:-2])
    rows, w = x.reshape(batch, -1, x.shape[-1]), w.reshape(batch, *w.shape[-2:])
    # Inside `jax.shard_map`, types carry manual axes that this primitive does not track.
    bind = _product if jax.sharding.get_abstract_mesh().manual_axes else _half_product.bind
    return bind(rows, w, layout=layout, dtype=jnp.dtype(dtype), split=split).reshape(*x.shape[:-1], -1)


def is_unbatched(primitive: Any, *operands: Any, **_: Any) -> bool:
    """Returns whether an equation is a `half_product` without batch; a policy of `jax.checkpoint`."""
    return primitive is _half_product and operands[0].shape[0] == 1


def _product(x_BMK: jax.Array, w_BKN: jax.Array, *, layout: str, dtype: jnp.dtype, split: bool) -> jax.Array:
    left, right = _CONTRACTED[layout]
    if split and jnp.float32 in (x_BMK.dtype, w_BKN.dtype):
        return _split_product(x_BMK, w_BKN, layout=layout, dtype=dtype)
    x_BMK, w_BKN = x_BMK.astype(jnp.bfloat16), w_BKN.astype(jnp.bfloat16)
    if x_BMK.shape[0] > 1:
        contracted: Any = (((left,), (right,)), ((0,), (0,)))
        return jax.lax.dot_general(x_BMK, w_BKN, contracted, preferred_element_type=dtype)
    contracted = (((left - 1,), (right - 1,)), ((), ()))  # XLA on CPU is slower with a batch axis of size 1
    return jax.lax.dot_general(x_BMK[0], w_BKN[0], contracted, preferred_element_type=dtype)[None]


def _split_product(x_BMK: jax.Array, w_BKN: jax.Array, *, layout: str, dtype: jnp.dtype) -> jax.Array:
    """Multiplies with float32 operands split into two bfloat16 terms, without the product of the smaller ones."""
    left, right = _CONTRACTED[layout]
    plain = functools.partial(_product, layout=layout, split=False)
    if x_BMK.dtype == w_BKN.dtype:
        (high_x, low_x), (high_w, low_w) = _terms(x_BMK), _terms(w_BKN)
        one = jnp.concatenate([high_x, low_x, high_x], axis=left)
        return plain(one, jnp.concatenate([high_w, high_w, low_w], axis=right), dtype=dtype)
    if w_BKN.dtype == jnp.float32:
        both = plain(x_BMK, jnp.concatenate(_terms(w_BKN), axis=3 - right), dtype=jnp.dtype("float32"))
        high, low = jnp.split(both, 2, axis=2)
        return (high + low).astype(dtype)
    both = plain(jnp.concatenate(_terms(x_BMK), axis=3 - left), w_BKN, dtype=jnp.dtype("float32"))
    high, low = jnp.split(both, 2, axis=1)
    return (high + low).astype(dtype)


def _terms(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Splits float32 values into two bfloat16 terms."""
    high = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)  # XLA may drop a pair of conversions
    return high.astype(jnp.bfloat16), (x - high).astype(jnp.bfloat16)


def _shape(x: Any, w: Any, *, layout: str, dtype: jnp.dtype, split: bool) -> jax.core.ShapedArray:
    left, right = _CONTRACTED[layout]
    if x.shape[0] != w.shape[0] or x.shape[left] != w.shape[right]:
        raise TypeError(f"operands {x.str_short()} and {w.str_short()} do not match in a product {layout!r}")
    return jax.core.ShapedArray((x.shape[0], x.shape[3 - left], w.shape[3 - right]), dtype)


def _transpose_left(
    cotangent: jax.Array, x: Any, w: jax.Array, *, layout: str, dtype: jnp.dtype, split: bool
) -> jax.Array:
    other, swapped = _OF_LEFT[layout]
    operands = (w, cotangent) if swapped else (cotangent, w)
    sums = x.aval.dtype if split else jnp.dtype(jnp.float32)
    return _half_product.bind(*operands, layout=other, dtype=sums, split=split).astype(x.aval.dtype)


def _transpose_right(
    cotangent: jax.Array, x: jax.Array, w: Any, *, layout: str, dtype: jnp.dtype, split: bool
) -> jax.Array:
    other, swapped = _OF_RIGHT[layout]
    operands = (cotangent, x) if swapped else (x, cotangent)
    sums = w.aval.dtype if split else jnp.dtype(jnp.float32)
    return _half_product.bind(*operands, layout=other, dtype=sums, split=split).astype(w.aval.dtype)


def _vmap(args: Any, dims: Any, *, layout: str, dtype: jnp.dtype, split: bool) -> tuple[jax.Array, int]:
    (x, w), (x_dim, w_dim) = args, dims
    if x_dim is not None and w_dim is not None:  # one product for each index
        x, w = jnp.moveaxis(x, x_dim, 0), jnp.moveaxis(w, w_dim, 0)
        size = x.shape[0]
        product = _half_product.bind(_merged(x, 0), _merged(w, 0), layout=layout, dtype=dtype, split=split)
        return product.reshape(size, -1, *product.shape[1:]), 0
    left, right = _CONTRACTED[layout]
    if w_dim is None:  # further rows
        product = _half_product.bind(
            _merged(jnp.moveaxis(x, x_dim, 3 - left), 3 - left), w, layout=layout, dtype=dtype, split=split
        )
        return product.reshape(product.shape[0], x.shape[x_dim], -1, product.shape[2]), 1
    product = _half_product.bind(
        x, _merged(jnp.moveaxis(w, w_dim, 3 - right), 3 - right), layout=layout, dtype=dtype, split=split
    )
    return product.reshape(*product.shape[:2], w.shape[w_dim], -1), 2


def _merged(array: jax.Array, axis: int) -> jax.Array:
    """Merges an axis with the next one."""
    return array.reshape(*array.shape[:axis], -1, *array.shape[axis + 2 :])


_half_product = Primitive("half_product")
_half_product.def_impl(jax.jit(_product, static_argnames=("layout", "dtype", "split")))
_half_product.def_abstract_eval(_shape)
ad.defbilinear(_half_product, _transpose_left, _transpose_right)
batching.primitive_batchers[_half_product] = _vmap
mlir.register_lowering(_half_product, mlir.lower_fun(_product, multiple_results=False))
