"""Low-rank adapters (LoRA, Hu et al. 2021) as pytrees: the model adds x A B to each adapted projection x W.

An adapter is {"layers": {"self_attn": {"q_proj": {"a": [L, in, R], "b": [L, R, out]}, ...}, "mlp": {...}}}, the
"lora" collection of `Llama`. Its leaves are all trainable: alpha / rank is no leaf, it enters by `scaled`.
Shapes: L layers, R rank.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mass_jax.llama.config import LlamaConfig

PARENT = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}
TARGETS = tuple(PARENT)


def init(
    key: jax.Array,
    config: LlamaConfig,
    rank: int,
    targets: Sequence[str] = TARGETS,
    dtype: jax.typing.DTypeLike | None = None,
) -> dict[str, Any]:
    """A fresh adapter that changes nothing: B = 0, A ~ N(0, 1 / in), so that x A has the size of x's features.

    Args:
      key: random key.
      config: the model's configuration.
      rank: R, at least 1.
      targets: names of projections, of `TARGETS`.
      dtype: of the leaves; None is float32, and float64 under `jax.enable_x64`.

    Returns:
      The adapter, stacked [L, ...].

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
        layers.setdefault(PARENT[name], {})[name] = {"a": a / math.sqrt(inputs), "b": b}
    return {"layers": layers}


def _check(rank: int, targets: Sequence[str]) -> None:
    if rank < 1:
        raise ValueError(f"LoRA rank is {rank}: it must be at least 1")
    for name in targets:
        if name not in PARENT:
            raise ValueError(f"LoRA target {name!r} is unknown: use some of {', '.join(TARGETS)}")
    if not targets or len(set(targets)) < len(targets):
        raise ValueError(f"LoRA targets {tuple(targets)} are empty or repeat: name each projection once")


def shape_of(config: LlamaConfig, name: str) -> tuple[int, int]:
    """(in, out) of a projection."""
    width, inner = config.hidden_size, config.intermediate_size
    heads, groups = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    outputs = {"q_proj": heads, "k_proj": groups, "v_proj": groups, "gate_proj": inner, "up_proj": inner}
    inputs = {"o_proj": heads, "down_proj": inner}
    return inputs.get(name, width), outputs.get(name, width)


def variables(params: Any, adapter: Any = None) -> dict[str, Any]:
    """What `Llama.apply` takes: the base alone, or the base with an adapter."""
    return {"params": params} if adapter is None else {"params": params, "lora": adapter}


def scaled(adapter: Any, factor: float) -> Any:
    """The adapter whose effect is `factor` times this one's: B is multiplied.

    Train the leaves, apply `scaled(adapter, alpha / rank)` (rsLoRA: alpha / sqrt(rank), Kalajdzievski 2023).
    """
    return _map_pairs(lambda pair: {"a": pair["a"], "b": pair["b"] * factor}, adapter)


def concatenate(first: Any, second: Any) -> Any:
    """The adapter whose effect is the sum of two: A side by side, B stacked, ranks added.

        x [A1 A2] [B1; B2] = x A1 B1 + x A2 B2

    The two have the same targets; leading axes broadcast, so one may have a task axis that the other lacks.

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


def merge(params: Any, adapter: Any) -> Any:
    """Base parameters with the adapter's effect added to the kernels: W + A B, in the kernels' dtype."""

    def walk(params: Any, adapter: Any) -> Any:
        if _is_pair(adapter):
            kernel = params["kernel"]
            update = adapter["a"] @ adapter["b"]
            return {**params, "kernel": (kernel.astype(update.dtype) + update).astype(kernel.dtype)}
        return {**params, **{name: walk(params[name], adapter[name]) for name in adapter}}

    return walk(params, adapter)


def split(adapter: Any, count: int) -> list[Any]:
    """The `count` adapters of a tree with a leading task axis."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], adapter) for i in range(count)]


def _is_pair(node: Any) -> bool:
    return set(node) == {"a", "b"}


def _map_pairs(function: Any, *adapters: Any) -> Any:
    if _is_pair(adapters[0]):
        return function(*adapters)
    return {name: _map_pairs(function, *(adapter[name] for adapter in adapters)) for name in adapters[0]}
