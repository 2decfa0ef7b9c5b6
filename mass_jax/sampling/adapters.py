"""Batches of adapters that differ in rank, scale or targets, or that are absent for some prompts."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from mass_jax.llama import lora
from mass_jax.types import Adapter, PyTree

Adapters: TypeAlias = Adapter | Sequence[Adapter | None] | None
"""None, a shared adapter for all prompts, a batched one, or one shared adapter or None per prompt."""


def batch(adapters: Adapters) -> Adapter | None:
    """Combines one adapter per prompt into a batched adapter.

    Smaller ranks are padded with zeros, and an absent adapter or target becomes zeros, which changes a sample by
    rounding at most.

    Args:
        adapters: a sequence of shared adapters, where None stands for the model without an adapter; an `Adapter` or
            None is returned unchanged.

    Returns:
        The batched adapter, of scale 1; None if the sequence has no adapter.

    Raises:
        ValueError: an adapter is batched, or two adapters are of different models.

    >>> leaves = {"layers": {"mlp": {"up_proj": {"a": jnp.ones((2, 4, 1)), "b": jnp.ones((2, 1, 8))}}}}
    >>> batch([Adapter(leaves, scale=3.0), None]).leaves["layers"]["mlp"]["up_proj"]["b"][:, 0, 0, 0].tolist()
    [3.0, 0.0]
    """
    if adapters is None or isinstance(adapters, Adapter):
        return adapters
    pairs = [{} if one is None else _pairs(lora.folded(lora.checked(one, False)).leaves) for one in adapters]
    like: dict[tuple[str, ...], dict[str, jax.Array]] = {}
    for found in pairs:
        for name, pair in found.items():
            like.setdefault(name, pair)
            _check_alike(name, pair, like[name])
    if not like:
        return None
    leaves: dict[str, Any] = {}
    for name, pair in like.items():
        rank = max(found[name]["a"].shape[-1] for found in pairs if name in found)
        padded = [_padded(found.get(name), pair, rank) for found in pairs]
        node = leaves
        for key in name:
            node = node.setdefault(key, {})
        node |= jax.tree.map(lambda *parts: jnp.stack(parts), *padded)
    return Adapter(leaves, batched=True)


def _pairs(leaves: PyTree, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], dict[str, jax.Array]]:
    """Returns the {"a", "b"} pairs of an adapter by their path."""
    if set(leaves) == {"a", "b"}:
        return {path: leaves}
    return {name: pair for key in leaves for name, pair in _pairs(leaves[key], (*path, key)).items()}


def _check_alike(name: tuple[str, ...], one: dict[str, jax.Array], two: dict[str, jax.Array]) -> None:
    """Checks that two pairs differ in rank only."""
    shapes = [(*pair["a"].shape[:-1], pair["b"].shape[-1]) for pair in (one, two)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"adapters of {name[-1]} have the shapes {shapes[1]} and {shapes[0]} (blocks, inputs, outputs): give "
            f"adapters of one model"
        )


def _padded(pair: dict[str, jax.Array] | None, like: dict[str, jax.Array], rank: int) -> dict[str, jax.Array]:
    """Returns a pair of the given rank; zeros in place of an absent pair."""
    if pair is None:
        shapes = {"a": (*like["a"].shape[:-1], rank), "b": (like["b"].shape[0], rank, like["b"].shape[-1])}
        return {name: jnp.zeros(shape, like[name].dtype) for name, shape in shapes.items()}
    more = rank - pair["a"].shape[-1]
    return {
        "a": jnp.pad(pair["a"], ((0, 0), (0, 0), (0, more))),
        "b": jnp.pad(pair["b"], ((0, 0), (0, more), (0, 0))),
    }
