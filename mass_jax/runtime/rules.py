"""Sharding rules: a table that maps the logical axes of every array of a run to mesh axes.

Leaves are identified by their paths, whose names follow Hugging Face. The same table therefore covers base weights,
adapters, optimizer states with the structure of either, and checkpoints.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mass_jax import projections
from mass_jax.llama import LlamaConfig
from mass_jax.llama.model import ScannedBlock
from mass_jax.types import PyTree


class Rule(NamedTuple):
    """One row of the table.

    Attributes:
        axis: logical axis.
        mesh_axis: mesh axis that splits it; None if it is not split.
        why: reason.
    """

    axis: str
    mesh_axis: str | None
    why: str


TABLE = (
    Rule("tasks", "data", "problems interact only in the outer gradients, so links may be slow; includes adapters"),
    Rule("rows", "fsdp", "examples and attempts of a problem: the chips that gather weights split the rows"),
    Rule("tokens", None, "attention mixes positions, and 2,048 of them fit"),
    Rule("layers", None, "a scan processes one layer at a time, which must not be on one chip only"),
    Rule("embed", "fsdp", "width of weights, their gradients, adapters and optimizer states; gathered when used"),
    Rule("heads", "tensor", "heads are independent until the output projection, which sums over chips"),
    Rule("kv_heads", "tensor", "stay with their query heads; also for key-value caches"),
    Rule("mlp", "tensor", "inner features of the MLP are independent until its output projection sums over chips"),
    Rule("vocab", "tensor", "128,256 rows: logits, the largest activation, are split and never gathered"),
    Rule("rank", None, "16 columns are too few to split"),
    Rule("norm", None, "kilobytes"),
    Rule("features", "tensor", "only between blocks: activations saved for the backward pass are split over all chips"),
    Rule("scorer_embed", "fsdp", "width of the scorer, which with its optimizer state takes the second most memory"),
    Rule("scorer", None, "the scorer's few heads and its vocabulary do not need a second split"),
    Rule("decode_rows", None, "one token per row is little work: rows stay together, so that weights need not move"),
    Rule("decode_embed", "fsdp", "when decoding, activations move to the weights instead of weights to activations"),
)

_MESH_AXIS = {rule.axis: rule.mesh_axis for rule in TABLE}
_LEADING: tuple[tuple[str, ...], ...] = ((), ("layers",), ("tasks", "layers"))


def axes_of(names: tuple[str, ...], ndim: int) -> tuple[str, ...]:
    """Returns the logical axes of a leaf.

    Args:
        names: names on the path of the leaf.
        ndim: number of its axes.

    Raises:
        ValueError: If the table does not cover the leaf, which would otherwise silently be replicated on every chip.

    >>> axes_of(("layers", "self_attn", "q_proj", "kernel"), 3)
    ('layers', 'embed', 'heads')
    >>> axes_of(("layers", "mlp", "down_proj", "a"), 4)
    ('tasks', 'layers', 'mlp', 'rank')
    """
    if ndim == 0:
        return ()
    own = _own_axes(names[-2] if len(names) > 1 else "", names[-1])
    if own is None or not 0 <= ndim - len(own) < len(_LEADING):
        raise ValueError(f"no rule places {'/'.join(names)} with {ndim} axes; add its name to runtime/rules.py")
    axes = _LEADING[ndim - len(own)] + own
    if "trunk" in names:
        known = {"layers": "layers", "norm": "norm", "embed": "scorer_embed"}
        return tuple(known.get(axis, "scorer") for axis in axes)
    return axes


def _own_axes(parent: str, name: str) -> tuple[str, ...] | None:
    """Returns the axes of a leaf without those of layers and tasks; None for an unknown leaf."""
    projection = projections.TABLE.get(parent)
    inputs, outputs = (projection.inputs, projection.outputs) if projection else ("embed", "embed")
    if name == "embedding":
        return "vocab", "embed"
    if name == "kernel":
        return {"lm_head": ("embed", "vocab"), "head": ("norm",)}.get(parent, (inputs, outputs))
    return {"bias": (outputs,), "weight": ("norm",), "a": (inputs, "rank"), "b": ("rank", outputs)}.get(name)


def spec(*axes: str) -> PartitionSpec:
    """Maps logical axes to mesh axes.

    >>> tuple(spec("tasks", "rows", "tokens"))
    ('data', 'fsdp', None)
    """
    return PartitionSpec(*(_MESH_AXIS[axis] for axis in axes))


def shardings(mesh: Mesh, tree: PyTree) -> PyTree:
    """Returns the sharding of each leaf of a tree of parameters, adapters or states.

    Args:
        mesh: device mesh from `make_mesh`.
        tree: arrays or shapes whose paths end in parameter names such as ("q_proj", "kernel"). Scalars are replicated.

    Returns:
        A tree of `NamedSharding` with the same structure.

    Raises:
        ValueError: If an axis size is not divisible by its mesh axis; the message names the leaf, the axis and the fix.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _sharding(mesh, path, leaf), tree)


def constrain(tree: PyTree) -> PyTree:
    """Constrains a tree of parameters or states to the shardings of the table, in jit under `use_mesh`.

    Without a mesh, returns the tree unchanged.
    """
    mesh: Any = jax.sharding.get_abstract_mesh()
    return tree if mesh.empty else jax.lax.with_sharding_constraint(tree, shardings(mesh, tree))


def _sharding(mesh: Mesh, path: Any, leaf: Any) -> NamedSharding:
    names = tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)
    axes = axes_of(names, leaf.ndim)
    for axis, size in zip(axes, leaf.shape, strict=True):
        check_divides(mesh, axis, size, "/".join(names))
    return NamedSharding(mesh, spec(*axes))


def check_divides(mesh: Mesh, axis: str, size: int, what: str) -> None:
    """Checks that the size of a logical axis is divisible by its mesh axis.

    Args:
        mesh: device mesh from `make_mesh`.
        axis: logical axis.
        size: its size.
        what: name of the array or setting, for the error message.

    Raises:
        ValueError: If it is not divisible; the message names the axis and the fix.
    """
    mesh_axis = _MESH_AXIS[axis]
    if mesh_axis is None or size % mesh.shape[mesh_axis] == 0:
        return
    count = mesh.shape[mesh_axis]
    good = math.gcd(size, count)
    raise ValueError(
        f"{mesh_axis}:{count} of --mesh does not divide the {size} {axis} of {what}; take {mesh_axis}:{good}"
        + (f", or a multiple of {count} {axis}" if axis == "tasks" else "")
    )


def check_layout(mesh: Mesh, config: LlamaConfig) -> None:
    """Checks that a mesh splits a model evenly and into whole heads.

    Raises:
        ValueError: If it does not; the message names the axis and the fix.
    """
    sizes = {
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "mlp": config.intermediate_size,
        "vocab": config.vocab_size,
        "embed": config.hidden_size,
    }
    for axis, size in sizes.items():
        check_divides(mesh, axis, size, "the model")


@contextlib.contextmanager
def use_mesh(mesh: Mesh) -> Iterator[Mesh]:
    """Context in which computations run on a mesh, with activations split according to the table."""
    with jax.set_mesh(mesh), nn.intercept_methods(_split_rows):
        yield mesh


def _split_rows(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Splits the rows that enter a block; the compiler propagates this sharding.

    Without it, the compiler splits the width, keeps all rows on every chip, and sums activations between chips.
    """
    if isinstance(context.module, ScannedBlock) and context.method_name == "__call__":
        rows, *rest = args
        return call(jax.lax.with_sharding_constraint(rows, spec("rows", "tokens", "features")), *rest, **kwargs)
    return call(*args, **kwargs)
