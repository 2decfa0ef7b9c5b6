"""Low-rank adapters (LoRA, Hu et al. 2021): the model adds scale * x A B to each adapted projection x W.

An `Adapter` holds the trainable leaves, their scale, and whether there is one adapter per task. With the scale folded
into B, its leaves are the "lora" collection of `Llama`.

Shape suffixes: L layers, R rank.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mass_jax import projections
from mass_jax.llama.config import LlamaConfig
from mass_jax.types import Adapter, Params, PyTree

TARGETS = projections.NAMES


def init(
    key: jax.Array,
    config: LlamaConfig,
    rank: int,
    targets: Sequence[str] = TARGETS,
    dtype: jax.typing.DTypeLike | None = None,
    scale: float = 1.0,
) -> Adapter:
    """Initializes an adapter with no effect: B = 0 and A ~ N(0, 1 / in), so that x A has the scale of x's features.

    Args:
        key: random key.
        config: the model's configuration.
        rank: R, at least 1.
        targets: names of the adapted projections, a subset of `TARGETS`.
        dtype: of the leaves; None is float32, or float64 under `jax.enable_x64`.
        scale: factor on A B, such as alpha / rank.

    Returns:
        The adapter, leaves [L, ...]. To initialize one per task, map over keys and return the leaves: see `Adapter`.

    Raises:
        ValueError: the rank is below 1, or a target is unknown or repeated.

    >>> config = LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=2, num_attention_heads=2,
    ...                      intermediate_size=8)
    >>> jax.tree.map(jnp.shape, init(jax.random.key(0), config, rank=1, targets=["up_proj"]).leaves)
    {'layers': {'mlp': {'up_proj': {'a': (2, 4, 1), 'b': (2, 1, 8)}}}}
    """
    _check(rank, targets)
    dtype = jax.dtypes.canonicalize_dtype(float) if dtype is None else dtype
    layers: dict[str, Any] = {}
    for i, name in enumerate(sorted(targets, key=TARGETS.index)):
        inputs, outputs = shape_of(config, name)
        a = jax.random.normal(jax.random.fold_in(key, i), (config.num_hidden_layers, inputs, rank), dtype)
        b = jnp.zeros((config.num_hidden_layers, rank, outputs), dtype)
        layers.setdefault(projections.TABLE[name].parent, {})[name] = {"a": a / math.sqrt(inputs), "b": b}
    return Adapter({"layers": layers}, scale)


def _check(rank: int, targets: Sequence[str]) -> None:
    if rank < 1:
        raise ValueError(f"LoRA rank is {rank}: it must be at least 1")
    for name in targets:
        if name not in TARGETS:
            raise ValueError(f"LoRA target {name!r} is unknown: use some of {', '.join(TARGETS)}")
    if not targets or len(set(targets)) < len(targets):
        raise ValueError(f"LoRA targets {tuple(targets)} are empty or repeated: name each projection once")


def shape_of(config: LlamaConfig, name: str) -> tuple[int, int]:
    """Returns the (input, output) features of a projection.

    >>> shape_of(LlamaConfig(hidden_size=8, num_attention_heads=4, num_key_value_heads=2), "k_proj")
    (8, 4)
    """
    sizes = {
        "embed": config.hidden_size,
        "heads": config.num_attention_heads * config.head_dim,
        "kv_heads": config.num_key_value_heads * config.head_dim,
        "mlp": config.intermediate_size,
    }
    projection = projections.TABLE[name]
    return sizes[projection.inputs], sizes[projection.outputs]


def checked(adapter: Adapter, batched: bool | None = None) -> Adapter:
    """Returns the adapter if the rank of its leaves agrees with its flag.

    Args:
        adapter: an adapter.
        batched: the kind that the caller needs; None accepts both.

    Raises:
        ValueError: the ranks contradict the flag, as after `jax.vmap` over an adapter instead of its leaves, or the
            adapter is of the other kind.

    >>> checked(jax.vmap(Adapter)({"a": jnp.ones((5, 2, 4, 1))}))
    Traceback (most recent call last):
    ...
    ValueError: leaves of a shared adapter have rank [4] instead of 3: map over adapter.leaves, not over the adapter
    """
    kind, rank = ("batched", 4) if adapter.batched else ("shared", 3)
    ranks = sorted({leaf.ndim for leaf in jax.tree.leaves(adapter.leaves)})
    if ranks != [rank]:
        raise ValueError(
            f"leaves of a {kind} adapter have rank {ranks} instead of {rank}: "
            "map over adapter.leaves, not over the adapter"
        )
    if batched is not None and batched != adapter.batched:
        fix = "use lora.stack" if batched else "map over adapter.leaves, or use lora.split"
        raise ValueError(f"the adapter is {kind}, but a {'batched' if batched else 'shared'} one is needed: {fix}")
    return adapter


def variables(params: Params, adapter: Adapter | None = None) -> dict[str, Any]:
    """Returns the variables that `Llama.apply` takes: the base parameters, and the adapter if there is one.

    Args:
        params: the base parameters.
        adapter: a shared adapter; its scale is folded into B.
    """
    return {"params": params} if adapter is None else {"params": params, "lora": folded(checked(adapter, False)).leaves}


def scaled(adapter: Adapter, factor: float | jax.Array) -> Adapter:
    """Multiplies the effect of an adapter by a factor, by multiplying its B matrices; the scale remains."""
    leaves = _map_pairs(lambda pair: {"a": pair["a"], "b": pair["b"] * factor}, adapter.leaves)
    return dataclasses.replace(adapter, leaves=leaves)


def folded(adapter: Adapter) -> Adapter:
    """Returns an adapter with the same effect whose scale is 1, by multiplying its B matrices."""
    return adapter if adapter.scale == 1 else dataclasses.replace(scaled(adapter, adapter.scale), scale=1.0)


def concatenate(first: Adapter, second: Adapter) -> Adapter:
    r"""Combines two adapters into one whose effect is the sum of theirs; ranks add up.

    .. math:: x [A_1 A_2] [s_1 B_1; s_2 B_2] = s_1 x A_1 B_1 + s_2 x A_2 B_2

    Args:
        first: an adapter.
        second: an adapter with the same targets. A shared and a batched one give a batched one; two batched ones have
            the same number of tasks.

    Returns:
        The combined adapter, of scale 1.

    Raises:
        ValueError: the targets differ.

    >>> adapter = lambda rank: Adapter({"q_proj": {"a": jnp.ones((2, 4, rank)), "b": jnp.ones((2, rank, 4))}}, 2.0)
    >>> jax.tree.map(jnp.shape, concatenate(adapter(1), adapter(2)).leaves)
    {'q_proj': {'a': (2, 4, 3), 'b': (2, 3, 4)}}
    """
    x, y = folded(checked(first)), folded(checked(second))
    one, two = str(jax.tree.structure(x.leaves)), str(jax.tree.structure(y.leaves))
    if one != two:
        raise ValueError(f"adapters differ in targets ({one} and {two}): initialize both with the same targets")

    def join(one: dict[str, jax.Array], two: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"a": _append(one["a"], two["a"], -1), "b": _append(one["b"], two["b"], -2)}

    return Adapter(_map_pairs(join, x.leaves, y.leaves), batched=x.batched or y.batched)


def _append(x: jax.Array, y: jax.Array, axis: int) -> jax.Array:
    lead = jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    parts = [jnp.broadcast_to(z, lead + z.shape[-2:]) for z in (x, y)]
    return jnp.concatenate(parts, axis=axis)


def merge(params: Params, adapter: Adapter) -> Params:
    """Adds a shared adapter's effect to the kernels of the base parameters: W + scale * A B, in the kernels' dtype."""

    def walk(params: Params, leaves: PyTree) -> Params:
        if _is_pair(leaves):
            kernel = params["kernel"]
            update = leaves["a"] @ leaves["b"]
            return {**params, "kernel": (kernel.astype(update.dtype) + update).astype(kernel.dtype)}
        return {**params, **{name: walk(params[name], leaves[name]) for name in leaves}}

    return walk(params, folded(checked(adapter, False)).leaves)


def stack(adapters: Sequence[Adapter]) -> Adapter:
    """Stacks shared adapters of the same shapes and scale to a batched one.

    Raises:
        ValueError: the scales differ.
    """
    scales = sorted({checked(adapter, False).scale for adapter in adapters})
    if len(scales) != 1:
        raise ValueError(f"the adapters have the scales {scales}: apply lora.folded to each before stacking")
    return adapters[0].many(jax.tree.map(lambda *leaves: jnp.stack(leaves), *(a.leaves for a in adapters)))


def split(adapter: Adapter) -> list[Adapter]:
    """Splits a batched adapter into shared ones, along its leading axis."""
    count = len(jax.tree.leaves(checked(adapter, True).leaves)[0])
    return [adapter.one(jax.tree.map(lambda leaf, i=i: leaf[i], adapter.leaves)) for i in range(count)]


def _is_pair(node: Any) -> bool:
    return set(node) == {"a", "b"}


def _map_pairs(function: Callable[..., Any], *leaves: PyTree) -> PyTree:
    """Maps a function over the {"a", "b"} pairs of adapters with the same targets."""
    if _is_pair(leaves[0]):
        return function(*leaves)
    return {name: _map_pairs(function, *(tree[name] for tree in leaves)) for name in leaves[0]}
