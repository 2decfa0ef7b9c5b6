"""Low-rank adapters (LoRA, Hu et al. 2021) as pytrees: the model adds x A B to each adapted projection x W.

An adapter is {"layers": {"self_attn": {"q_proj": {"a": [L, in, R], "b": [L, R, out]}, ...}, "mlp": {...}}}, the
"lora" collection of `Llama`. All of its leaves are trainable; the alpha / rank factor is applied by `scaled`, not
stored.

Shape suffixes: L layers, R rank.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mass_jax import projections
from mass_jax.llama.config import LlamaConfig
from mass_jax.types import Adapter, Params

TARGETS = projections.NAMES


def init(
    key: jax.Array,
    config: LlamaConfig,
    rank: int,
    targets: Sequence[str] = TARGETS,
    dtype: jax.typing.DTypeLike | None = None,
) -> dict[str, Any]:
    """Initializes an adapter with no effect: B = 0 and A ~ N(0, 1 / in), so that x A has the scale of x's features.

    Args:
        key: random key.
        config: the model's configuration.
        rank: R, at least 1.
        targets: names of the adapted projections, a subset of `TARGETS`.
        dtype: of the leaves; None is float32, or float64 under `jax.enable_x64`.

    Returns:
        The adapter, stacked [L, ...].

    Raises:
        ValueError: the rank is below 1, or a target is unknown or repeated.

    >>> config = LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=2, num_attention_heads=2,
    ...                      intermediate_size=8)
    >>> jax.tree.map(jnp.shape, init(jax.random.key(0), config, rank=1, targets=["up_proj"]))
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
    return {"layers": layers}


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


def variables(params: Params, adapter: Adapter | None = None) -> dict[str, Any]:
    """Returns the variables that `Llama.apply` takes: the base parameters, and the adapter if there is one."""
    return {"params": params} if adapter is None else {"params": params, "lora": adapter}


def is_batched(adapter: Adapter | None) -> bool:
    """Returns whether an adapter has a leading axis, with one adapter per task or prompt.

    Leaves of a shared adapter are [L, in, R] and [L, R, out]; leaves of a batched one have a further axis in front.
    None, no adapter, counts as shared.

    >>> is_batched({"a": jnp.ones((2, 4, 1))}), is_batched({"a": jnp.ones((5, 2, 4, 1))})
    (False, True)
    """
    return adapter is not None and jax.tree.leaves(adapter)[0].ndim == 4


def scaled(adapter: Adapter, factor: float) -> Adapter:
    """Multiplies the effect of an adapter by a factor, by scaling its B matrices.

    Train the leaves and apply `scaled(adapter, alpha / rank)`; rsLoRA (Kalajdzievski 2023) uses alpha / sqrt(rank).
    """
    return _map_pairs(lambda pair: {"a": pair["a"], "b": pair["b"] * factor}, adapter)


def concatenate(first: Adapter, second: Adapter) -> Adapter:
    r"""Combines two adapters into one whose effect is the sum of theirs; ranks add up.

    .. math:: x [A_1 A_2] [B_1; B_2] = x A_1 B_1 + x A_2 B_2

    Args:
        first: an adapter.
        second: an adapter with the same targets. Leading axes broadcast, so that only one of them may have a task axis.

    Returns:
        The combined adapter.

    Raises:
        ValueError: the targets differ.

    >>> pair = lambda rank: {"q_proj": {"a": jnp.ones((2, 4, rank)), "b": jnp.ones((2, rank, 4))}}
    >>> jax.tree.map(jnp.shape, concatenate(pair(1), pair(2)))
    {'q_proj': {'a': (2, 4, 3), 'b': (2, 3, 4)}}
    """
    one, two = str(jax.tree.structure(first)), str(jax.tree.structure(second))
    if one != two:
        raise ValueError(f"adapters differ in targets ({one} and {two}): initialize both with the same targets")

    def join(one: dict[str, jax.Array], two: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"a": _append(one["a"], two["a"], -1), "b": _append(one["b"], two["b"], -2)}

    return _map_pairs(join, first, second)


def _append(x: jax.Array, y: jax.Array, axis: int) -> jax.Array:
    lead = jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    parts = [jnp.broadcast_to(z, lead + z.shape[-2:]) for z in (x, y)]
    return jnp.concatenate(parts, axis=axis)


def merge(params: Params, adapter: Adapter) -> Params:
    """Adds an adapter's effect to the kernels of the base parameters: W + A B, in the kernels' dtype."""

    def walk(params: Params, adapter: Adapter) -> Params:
        if _is_pair(adapter):
            kernel = params["kernel"]
            update = adapter["a"] @ adapter["b"]
            return {**params, "kernel": (kernel.astype(update.dtype) + update).astype(kernel.dtype)}
        return {**params, **{name: walk(params[name], adapter[name]) for name in adapter}}

    return walk(params, adapter)


def split(adapter: Adapter, count: int) -> list[Adapter]:
    """Splits a batched adapter into a list of `count` adapters, along its leading axis."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], adapter) for i in range(count)]


def _is_pair(node: Any) -> bool:
    return set(node) == {"a", "b"}


def _map_pairs(function: Callable[..., Any], *adapters: Adapter) -> Adapter:
    """Maps a function over the {"a", "b"} pairs of adapters with the same targets."""
    if _is_pair(adapters[0]):
        return function(*adapters)
    return {name: _map_pairs(function, *(adapter[name] for adapter in adapters)) for name in adapters[0]}
