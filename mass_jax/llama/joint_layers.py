"""Layers for decoding on one GPU, with products of all tasks at once; see `JointProjection`.

Shape suffixes: N tasks, D input features, A columns of all projections with this input, C columns and E output features
of a product, R rank, F output features of a projection.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mass_jax import projections
from mass_jax.llama.dense import LORA, ROWS
from mass_jax.llama.joint_projection import JointProjection
from mass_jax.llama.model import Llama
from mass_jax.llama.target import gpus
from mass_jax.types import Params

MOST_COLUMNS = 1024  # tasks times rank; with more, products with mostly zeros take longer than one product per task
_MERGED = ("q_proj", "k_proj", "v_proj")  # XLA would merge their weights in every step, since two of them are small
_APPENDED = (_MERGED, ("o_proj",))  # whose weights are copied, to append A; those of the MLP are too large
_ALIGNED = 8  # XLA pads the operands of a product in bfloat16 to a multiple of this, in every step


def suits(model: Llama, params: Params, adapters: list[Any]) -> bool:
    """Returns whether to join: on a single GPU, for weights in bfloat16 and at most `MOST_COLUMNS` columns.

    Args:
        model: the model.
        params: parameters.
        adapters: adapters by layer, from `decode.unstack_adapter`.
    """
    if gpus() != 1:
        return False
    config, leaves = model.config, jax.tree.leaves(params["layers"])
    if config.half_products or config.dtype not in (None, "bfloat16"):
        return False
    if any(leaf.dtype != jnp.bfloat16 for leaf in leaves):
        return False
    return all(
        pair["b"].size // pair["b"].shape[-1] <= MOST_COLUMNS
        for adapter in adapters
        for pair in _pairs(adapter).values()
    )


def join(params: Params, adapters: list[Any]) -> tuple[Params, list[Any]]:
    """Joins the adapters of all tasks with the weights, in the dtype of the weights.

    This copies the adapters and the weights of attention, a sixth of Llama 3.1 8B. Call it before a loop of steps.

    Args:
        params: parameters, from `decode.unstack`.
        adapters: adapters by layer, from `decode.unstack_adapter`.

    Returns:
        Parameters whose layers contain the adapters, and adapters by layer, which are empty.
    """
    layers = tuple(_layer(*pair) for pair in zip(params["layers"], adapters, strict=True))
    return {**params, "layers": layers}, [{}] * len(layers)


def _pairs(adapter: Any) -> dict[str, Any]:
    """Returns the pairs of a layer's adapter by projection."""
    return {name: pair for parent in adapter.get(LORA, {}).values() for name, pair in parent.items()}


def _layer(layer: Any, adapter: Any) -> Any:
    """Returns the parameters of a layer with joint projections."""
    joined, pairs = {parent: dict(children) for parent, children in layer.items()}, _pairs(adapter)
    inputs: dict[Any, list[str]] = {}
    for name, projection in projections.TABLE.items():
        inputs.setdefault((projection.parent, projection.inputs), []).append(name)
    for (parent, _), names in inputs.items():
        sources = [pairs[name]["a"] for name in names if name in pairs]
        a_DA = jnp.concatenate(list(map(_columns, sources)), axis=1) if sources else None
        first = 0
        for group in [names] if tuple(names) == _MERGED else [[name] for name in names]:
            own = {name: pairs[name] for name in group if name in pairs}
            joined[parent].update(_product({name: joined[parent][name] for name in group}, own, a_DA, first))
            first += sum(_columns(pair["a"]).shape[1] for pair in own.values())
    return joined


def _product(group: dict[str, Any], pairs: dict[str, Any], a_DA: jax.Array | None, first: int) -> dict[str, Any]:
    """Returns the projections of a group, which share one product; their columns begin at `first`."""
    rows = [leaves[ROWS] for leaves in group.values()]
    rows_ED, dtype = jnp.concatenate(rows) if len(rows) > 1 else rows[0], rows[0].dtype
    b_CE = None
    if pairs and a_DA is not None:
        blocks = [
            [_block(pair["b"], name == other, len(leaves[ROWS])) for other, leaves in group.items()]
            for name, pair in pairs.items()
        ]
        b_CE, a_DA = jnp.block(blocks).astype(dtype), a_DA.astype(dtype)
        if tuple(group) in _APPENDED and len(b_CE) % _ALIGNED == 0:
            rows_ED, b_CE, a_DA = jnp.concatenate([rows_ED, a_DA.T]), jnp.pad(b_CE, ((0, 0), (0, len(b_CE)))), None
    ranks = tuple(pair["a"].shape[-1] for pair in pairs.values())
    tasks = next((len(pair["a"]) for pair in pairs.values() if pair["a"].ndim == 3), 1)
    joined, start = {}, 0
    for name, leaves in group.items():
        stop = start + len(leaves[ROWS])
        projection = JointProjection(rows_ED, a_DA if pairs else None, b_CE, tasks, ranks, first, (start, stop))
        joined[name] = {**leaves, ROWS: projection}
        start = stop
    return joined


def _columns(a: jax.Array) -> jax.Array:
    """Returns the matrices A of all tasks [N, D, R], or a shared one, side by side."""
    return a if a.ndim == 2 else jnp.moveaxis(a, 0, 1).reshape(a.shape[1], -1)


def _block(b: jax.Array, own: bool, width: int) -> jax.Array:
    """Returns the matrices B of all tasks [N, R, F] one below the other, or zeros for another projection's outputs."""
    b = b.reshape(-1, b.shape[-1])
    return b if own else jnp.zeros((len(b), width), b.dtype)
