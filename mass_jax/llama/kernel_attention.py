"""Causal attention by Pallas kernels, differentiable in forward mode too, and in forward mode over reverse mode.

Fused attention is usually a `jax.custom_vjp` function, which `jax.jvp` refuses. Here each map is a JAX primitive whose
derivative is the next one: the tangent of `forward` is `forward_tangent`, whose transpose is `backward`, whose tangent
is `backward_tangent`. The last is the Hessian of the output's product with its cotangent and therefore symmetric, so
that its transpose is itself and reverse mode over reverse mode works as well. Formulas are in `kernel_forward` and
`kernel_backward`.

The primitives are batched by merging the new axis into the rows. Shape suffixes as in `attention`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from mass_jax.errors import UserError
from mass_jax.llama import kernel_calls as calls
from mass_jax.llama.precision import wide


class SecondTangentError(UserError, TypeError):
    """Error for a derivative of the tangent of kernel attention, such as forward mode over forward mode."""


def attend(
    query_BTKGH: jax.Array, key_BSKH: jax.Array, value_BSKH: jax.Array, mask_BS: jax.Array | None, *, block: int = 0
) -> jax.Array:
    r"""Computes causal attention of the last T positions to all S by kernels that hold one tile of scores at a time.

    .. math:: o_t = \sum_s \mathrm{softmax}_s(q_t \cdot k_s / \sqrt{H}) \, v_s, \quad s \text{ visible from } t

    Every derivative takes memory linear in T. Sums and softmaxes are at least float32. The output of a query that sees
    no key is 0. On a CPU the kernels are interpreted, which is slow and serves tests.

    Args:
        query_BTKGH: queries of the last T positions.
        key_BSKH: keys.
        value_BSKH: values.
        mask_BS: true at real tokens; None if all are real.
        block: queries, and keys, of a tile; 0 is the platform's choice.

    Returns:
        [B, T, K, G, H] in the queries' dtype.

    Raises:
        SecondTangentError: the result is differentiated twice in forward mode, or in reverse mode over forward mode.

    Source:
        Dao et al. 2022 (FlashAttention), algorithms 1 and 4; tangents in `kernel_forward` and `kernel_backward`.

    >>> query, key = jnp.ones((1, 2, 1, 1, 4)), jnp.ones((1, 2, 1, 4))
    >>> attend(query, key, jnp.arange(8.0).reshape(1, 2, 1, 4), None)[0, :, 0, 0].tolist()
    [[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0]]
    """
    rows, keys = key_BSKH.shape[:2]
    visible_BS = jnp.ones((rows, keys), jnp.int32) if mask_BS is None else mask_BS.astype(bool).astype(jnp.int32)
    query_BKGTH = jnp.transpose(query_BTKGH, (0, 2, 3, 1, 4))
    key_BKSH, value_BKSH = (jnp.swapaxes(x, 1, 2) for x in (key_BSKH, value_BSKH))
    out_BKGTH, _ = _forward.bind(query_BKGTH, key_BKSH, value_BKSH, visible_BS, block=block)
    return jnp.transpose(out_BKGTH, (0, 3, 1, 2, 4))


def _compute_forward(query: Any, key: Any, value: Any, visible_BS: Any, *, block: int) -> Any:
    return calls.forward(query, key, value, visible_BS, block=block)


def _compute_forward_tangent(*operands: Any, block: int) -> Any:
    return calls.forward_tangent(*operands, block=block)


def _compute_backward(
    query: Any, key: Any, value: Any, visible_BS: Any, out: Any, normalizer: Any, out_bar: Any, *, block: int
) -> Any:
    delta = _inner(out_bar, out)
    statistics = normalizer, delta, out_bar
    (query_bar,) = calls.backward_queries(query, key, value, visible_BS, *statistics, block=block)
    bars = calls.backward_keys(query, key, value, *statistics, block=block)
    return query_bar, *_of_keys(bars, visible_BS, (key, value))


def _compute_backward_tangent(
    query: Any, key: Any, value: Any, visible_BS: Any, out: Any, normalizer: Any, out_bar: Any,
    query_dot: Any, key_dot: Any, value_dot: Any, out_dot: Any, normalizer_dot: Any, out_bar_dot: Any,
    *, block: int,
) -> Any:  # fmt: skip
    statistics = normalizer, _inner(out_bar, out), out_bar
    delta_dot = _inner(out_bar_dot, out) + _inner(out_bar, out_dot)
    tangents = query_dot, key_dot, value_dot, normalizer_dot, delta_dot, out_bar_dot
    (query_bar_dot,) = calls.backward_tangent_queries(
        query, key, value, visible_BS, *statistics, *tangents, block=block
    )
    bars = calls.backward_tangent_keys(query, key, value, *statistics, *tangents, block=block)
    return query_bar_dot, *_of_keys(bars, visible_BS, (key, value))


def _inner(a_BKGTH: jax.Array, b_BKGTH: jax.Array) -> jax.Array:
    """Returns inner products over the features."""
    dtype = wide(a_BKGTH.dtype)
    return jnp.sum(a_BKGTH.astype(dtype) * b_BKGTH.astype(dtype), axis=-1)


def _of_keys(bars: Sequence[jax.Array], visible_BS: jax.Array, like: Sequence[jax.Array]) -> list[jax.Array]:
    """Sums over the heads of a group, and returns zeros at hidden keys."""
    seen = visible_BS[:, None, :, None] != 0
    return [jnp.where(seen, bar_BKGSH.sum(axis=2), 0).astype(x.dtype) for bar_BKGSH, x in zip(bars, like, strict=True)]


def _primitive(name: str, compute: Callable[..., Any], like: Callable[..., Sequence[Any]]) -> Primitive:
    """Returns a primitive that runs `compute`; `like` selects from the operands' shapes those of the results."""
    primitive = Primitive(f"attention_{name}")
    primitive.multiple_results = True
    primitive.def_impl(jax.jit(lambda *operands, block: list(compute(*operands, block=block)), static_argnames="block"))
    primitive.def_abstract_eval(lambda *shapes, block: list(like(*shapes)))
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=True))
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
    return primitive


def _batch(primitive: Primitive, operands: Sequence[Any], axes: Sequence[Any], *, block: int) -> Any:
    """Merges the batch axis into the rows."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)

    def merged(x: Any, axis: int | None) -> Any:
        x = jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        return x.reshape(-1, *x.shape[2:])

    results = primitive.bind(*(merged(*pair) for pair in zip(operands, axes, strict=True)), block=block)
    return [x.reshape(size, -1, *x.shape[1:]) for x in results], [0] * len(results)


def _statistic(query: Any) -> Any:
    return query.update(shape=query.shape[:-1], dtype=wide(query.dtype))


_forward = _primitive("forward", _compute_forward, lambda q, *_: (q, _statistic(q)))
_forward_tangent = _primitive("forward_tangent", _compute_forward_tangent, lambda q, *_: (q, _statistic(q)))
_backward = _primitive("backward", _compute_backward, lambda q, k, v, *_: (q, k, v))
_backward_tangent = _primitive("backward_tangent", _compute_backward_tangent, lambda q, k, v, *_: (q, k, v))


def _forward_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, block: int) -> Any:
    out, normalizer = _forward.bind(*primals, block=block)
    dots = [ad.instantiate_zeros(dot) for dot in tangents[:3]]
    return (out, normalizer), _forward_tangent.bind(*primals, out, normalizer, *dots, block=block)


def _forward_tangent_transpose(bars: Sequence[Any], *operands: Any, block: int) -> Any:
    """Returns cotangents of the inputs' tangents. `attend` does not return the normalizer, so its cotangent is zero."""
    residuals, dots = operands[:6], operands[6:]
    if isinstance(bars[0], ad.Zero):
        return [None] * len(operands)
    found = _backward.bind(*residuals, bars[0], block=block)
    return [None] * 6 + [bar if ad.is_undefined_primal(dot) else None for bar, dot in zip(found, dots, strict=True)]


def _backward_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, block: int) -> Any:
    """Returns the total derivative: tangents of the output and the normalizer are those that the inputs' imply."""
    dots = [ad.instantiate_zeros(dot) for dot in (*tangents[:3], *tangents[4:])]
    return _backward.bind(*primals, block=block), _backward_tangent.bind(*primals, *dots, block=block)


def _backward_tangent_transpose(bars: Sequence[Any], *operands: Any, block: int) -> Any:
    residuals, dots = operands[:7], operands[7:]
    inputs, out_bar = residuals[:6], residuals[6]
    bars = [ad.instantiate_zeros(bar) for bar in bars]
    out_dot, normalizer_dot = _forward_tangent.bind(*inputs, *bars, block=block)
    zeros = jnp.zeros_like(out_bar)
    found = _backward_tangent.bind(*residuals, *bars, out_dot, normalizer_dot, zeros, block=block)
    found = [*found, None, None, out_dot]
    return [None] * 7 + [bar if ad.is_undefined_primal(dot) else None for bar, dot in zip(found, dots, strict=True)]


def _linear_jvp(primitive: Primitive, residuals: int, primals: Any, tangents: Any, *, block: int) -> Any:
    """Differentiates along the linear operands only."""
    if not all(isinstance(dot, ad.Zero) for dot in tangents[:residuals]):
        _refuse()
    dots = [ad.instantiate_zeros(dot) for dot in tangents[residuals:]]
    results = primitive.bind(*primals, block=block)
    return results, primitive.bind(*primals[:residuals], *dots, block=block)


def _refuse() -> NoReturn:
    raise SecondTangentError(
        "kernel attention has no derivative of its tangent (jax.jvp or jax.grad around jax.jvp); use jax.jvp around "
        'jax.grad, or attention="blockwise"'
    )


ad.primitive_jvps[_forward] = _forward_jvp
ad.primitive_transposes[_forward_tangent] = _forward_tangent_transpose
ad.primitive_jvps[_forward_tangent] = functools.partial(_linear_jvp, _forward_tangent, 6)
ad.primitive_jvps[_backward] = _backward_jvp
ad.primitive_transposes[_backward_tangent] = _backward_tangent_transpose
ad.primitive_jvps[_backward_tangent] = functools.partial(_linear_jvp, _backward_tangent, 7)
