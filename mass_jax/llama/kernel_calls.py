"""Calls of the Pallas kernels of attention: padding, tiles, and the parameters of each platform.

Queries are [B, K, G, T, H], keys and values [B, K, S, H], statistics of queries [B, K, G, T] in float32, or float64 for
float64 queries, and `visible_BS` is an int32, nonzero at real tokens. Shape suffixes as in `attention`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from mass_jax.llama import kernel_backward, kernel_forward
from mass_jax.llama.kernel_tiles import Tiling
from mass_jax.llama.precision import wide

_LEAST = 16  # features of a head, which Triton needs for a product, and a power of two
_VMEM = 64 * 2**20  # bytes on a TPU: keys and values of a head, their tangents, and copies in flight

QUERY, KEY, STATISTIC, VISIBLE = "query", "key", "statistic", "visible"


@dataclasses.dataclass(frozen=True)
class _Platform:
    """How kernels run on a platform.

    Attributes:
        block: queries, and keys, of a tile; a multiple of 128 on TPUs, whose statistics lie along 128 lanes.
        options: further arguments of `pallas_call`.
    """

    block: int
    options: Callable[[], dict[str, Any]]


def _tpu() -> dict[str, Any]:
    from jax.experimental.pallas import tpu

    semantics: Any = ("parallel",) * 4
    return {"compiler_params": tpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=_VMEM)}


def _gpu() -> dict[str, Any]:
    from jax.experimental.pallas import triton

    return {"compiler_params": triton.CompilerParams(num_warps=4, num_stages=1)}


_PLATFORMS = {
    "tpu": _Platform(128, _tpu),
    "cuda": _Platform(64, _gpu),
    "cpu": _Platform(64, lambda: {"interpret": True}),
}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel with the kinds of its operands and results.

    Attributes:
        body: a function of `kernel_forward` or `kernel_backward`.
        over: whether a program computes a tile of queries or of keys.
        operands: kinds of the operands.
        results: kinds of the results; those with the kind of keys have an axis for the heads of the group.
    """

    body: Callable[..., None]
    over: str
    operands: tuple[str, ...]
    results: tuple[str, ...]

    def __call__(self, *arrays: jax.Array, block: int = 0) -> Sequence[jax.Array]:
        """Runs the kernel on the platform that the program is compiled for; `block` of 0 is that platform's."""
        calls = {
            name: functools.partial(_run, kernel=self, block=block or platform.block, options=platform.options)
            for name, platform in _PLATFORMS.items()
        }
        return jax.lax.platform_dependent(*arrays, **calls)


def _run(*arrays: jax.Array, kernel: Kernel, block: int, options: Callable[[], dict[str, Any]]) -> Sequence[jax.Array]:
    query_BKGTH, key_BKSH = arrays[:2]
    rows, heads, group, queries, features = query_BKGTH.shape
    keys = key_BKSH.shape[2]
    tiling = Tiling(features**-0.5, keys - queries, block, pl.cdiv(queries, block), pl.cdiv(keys, block))
    lengths = {QUERY: tiling.query_tiles * block, KEY: tiling.key_tiles * block}
    lengths |= {STATISTIC: lengths[QUERY], VISIBLE: lengths[KEY]}
    width = max(pl.next_power_of_2(features), _LEAST)

    def spec(kind: str, *, result: bool = False) -> pl.BlockSpec:
        """Returns the tile of an array that a program sees; the axis it does not compute over is whole."""
        tiled = kernel.over == (KEY if kind in (KEY, VISIBLE) else QUERY)
        length = block if tiled else lengths[kind]

        def index(b: Any, k: Any, g: Any, tile: Any) -> tuple[Any, ...]:
            along = tile if tiled else 0
            if kind == VISIBLE:
                return b, 0, along
            if kind == STATISTIC:
                return b, k, g, 0, along
            return (b, k, along, 0) if kind == KEY and not result else (b, k, g, along, 0)

        shape = {VISIBLE: (None, 1, length), STATISTIC: (None, None, None, 1, length)}
        default = (None,) * (2 if kind == KEY and not result else 3) + (length, width)
        return pl.BlockSpec(shape.get(kind, default), index)

    def padded(kind: str, array: jax.Array) -> jax.Array:
        extra = lengths[kind] - array.shape[-1 if kind in (STATISTIC, VISIBLE) else -2]
        if kind in (STATISTIC, VISIBLE):
            return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, extra)])[..., None, :]
        return jnp.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, extra), (0, width - features)])

    def shape(kind: str) -> jax.ShapeDtypeStruct:
        lead, dtype = (rows, heads, group), wide(query_BKGTH.dtype)
        if kind == STATISTIC:
            return jax.ShapeDtypeStruct((*lead, 1, lengths[kind]), dtype)
        return jax.ShapeDtypeStruct((*lead, lengths[kind], width), query_BKGTH.dtype if kind == QUERY else dtype)

    results = pl.pallas_call(
        functools.partial(kernel.body, tiling),
        grid=(rows, heads, group, tiling.query_tiles if kernel.over == QUERY else tiling.key_tiles),
        in_specs=[spec(kind) for kind in kernel.operands],
        out_specs=[spec(kind, result=True) for kind in kernel.results],
        out_shape=[shape(kind) for kind in kernel.results],
        name=kernel.body.__name__,
        **options(),
    )(*(padded(kind, array) for kind, array in zip(kernel.operands, arrays, strict=True)))
    return [
        result[..., 0, :queries] if kind == STATISTIC else result[..., : queries if kind == QUERY else keys, :features]
        for kind, result in zip(kernel.results, results, strict=True)
    ]


_INPUTS = (QUERY, KEY, KEY, VISIBLE)
_KEY_INPUTS = (QUERY, KEY, KEY)  # keys that are not visible get their results replaced
_STATISTICS = (STATISTIC, STATISTIC, QUERY)  # log-normalizer, D, cotangent of the output
_TANGENTS = (QUERY, KEY, KEY, *_STATISTICS)

forward = Kernel(kernel_forward.forward, QUERY, _INPUTS, (QUERY, STATISTIC))
forward_tangent = Kernel(
    kernel_forward.forward_tangent, QUERY, (*_INPUTS, QUERY, STATISTIC, QUERY, KEY, KEY), (QUERY, STATISTIC)
)
backward_queries = Kernel(kernel_backward.backward_queries, QUERY, (*_INPUTS, *_STATISTICS), (QUERY,))
backward_keys = Kernel(kernel_backward.backward_keys, KEY, (*_KEY_INPUTS, *_STATISTICS), (KEY, KEY))
backward_tangent_queries = Kernel(
    kernel_backward.backward_tangent_queries, QUERY, (*_INPUTS, *_STATISTICS, *_TANGENTS), (QUERY,)
)
backward_tangent_keys = Kernel(
    kernel_backward.backward_tangent_keys, KEY, (*_KEY_INPUTS, *_STATISTICS, *_TANGENTS), (KEY, KEY)
)
