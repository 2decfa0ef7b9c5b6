"""Which axis of which array is split over which axis of the mesh: one table, for everything a run holds.

The leaves of every tree are known by their paths, whose names are Hugging Face's, so that the same table places base
weights, adapters, optimizer states that repeat the tree, and checkpoints.
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


class Rule(NamedTuple):
    """One row of the table."""

    axis: str
    mesh_axis: str | None
    why: str


TABLE = (
    Rule("tasks", "data", "tasks meet only in the outer gradients, so their links may be slow; adapters go with them"),
    Rule("rows", "fsdp", "examples and attempts of a task: where weights are gathered for, each chip has its own rows"),
    Rule("tokens", None, "attention mixes positions, and 2,048 of them fit"),
    Rule("layers", None, "a scan takes one layer at a time, which must not lie on one chip"),
    Rule("embed", "fsdp", "the width of weights, their gradients, adapters and optimizer states: gathered when used"),
    Rule("heads", "tensor", "heads never mix before the output projection, which sums over chips"),
    Rule("kv_heads", "tensor", "with their query heads; caches of keys and values too"),
    Rule("mlp", "tensor", "inner features of the MLP are independent until its output projection sums over chips"),
    Rule("vocab", "tensor", "128,256 rows: logits, the largest activation, are split and never gathered"),
    Rule("rank", None, "16 columns are too few to split"),
    Rule("norm", None, "kilobytes"),
    Rule("features", "tensor", "between blocks only: what is saved for the backward pass is split on all chips"),
    Rule("scorer_embed", "fsdp", "the scorer's width; with its optimizer state it is the second largest thing held"),
    Rule("scorer", None, "the scorer's few heads and its vocabulary need no second split"),
    Rule("decode_rows", None, "one token a row is little: rows stay together, so that weights stay where they are"),
    Rule("decode_embed", "fsdp", "activations move to the weights when decoding, not weights to activations"),
)

_MESH_AXIS = {rule.axis: rule.mesh_axis for rule in TABLE}
_LEADING: tuple[tuple[str, ...], ...] = ((), ("layers",), ("tasks", "layers"))


def axes_of(names: tuple[str, ...], ndim: int) -> tuple[str, ...]:
    """Logical axes of one leaf, from the names on its path.

    Raises:
        ValueError: a leaf that the table does not know; it would be held whole on every chip without anyone noticing.

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
    """Axes of a leaf without those of layers and tasks."""
    projection = projections.TABLE.get(parent)
    inputs, outputs = (projection.inputs, projection.outputs) if projection else ("embed", "embed")
    if name == "embedding":
        return "vocab", "embed"
    if name == "kernel":
        return {"lm_head": ("embed", "vocab"), "head": ("norm",)}.get(parent, (inputs, outputs))
    return {"bias": (outputs,), "weight": ("norm",), "a": (inputs, "rank"), "b": ("rank", outputs)}.get(name)


def spec(*axes: str) -> PartitionSpec:
    """Logical axes as axes of the mesh.

    >>> tuple(spec("tasks", "rows", "tokens"))
    ('data', 'fsdp', None)
    """
    return PartitionSpec(*(_MESH_AXIS[axis] for axis in axes))


def shardings(mesh: Mesh, tree: Any) -> Any:
    """Where each leaf of a tree of weights, adapters or states lies.

    Args:
        mesh: from `make_mesh`.
        tree: arrays or shapes; paths end in the names of parameters ("q_proj", "kernel"), scalars are everywhere.

    Returns:
        `NamedSharding`s, structured like the tree.

    Raises:
        ValueError: an axis does not divide; the message names the leaf, the axis and the fix.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _sharding(mesh, path, leaf), tree)


def constrain(tree: Any) -> Any:
    """Inside jit, under `use_mesh`: the leaves of a tree of weights or states where the table says; else unchanged."""
    mesh: Any = jax.sharding.get_abstract_mesh()
    return tree if mesh.empty else jax.lax.with_sharding_constraint(tree, shardings(mesh, tree))


def _sharding(mesh: Mesh, path: Any, leaf: Any) -> NamedSharding:
    names = tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)
    axes = axes_of(names, leaf.ndim)
    for axis, size in zip(axes, leaf.shape, strict=True):
        check_divides(mesh, axis, size, "/".join(names))
    return NamedSharding(mesh, spec(*axes))


def check_divides(mesh: Mesh, axis: str, size: int, what: str) -> None:
    """Refuses to split what does not divide.

    Raises:
        ValueError: names what, the axis and the fix.
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
    """Refuses a mesh that would cut through a head, whose parts mean nothing alone, or does not divide a width.

    Raises:
        ValueError: names the axis and the fix.
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
    """Within it, computations run on the mesh and activations are split as the table says."""
    with jax.set_mesh(mesh), nn.intercept_methods(_split_rows):
        yield mesh


def _split_rows(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """What enters a block has its rows split; from there on the compiler finds the rest.

    Without this it splits the width instead, keeps all rows on every chip, and sums activations between chips.
    """
    if isinstance(context.module, ScannedBlock) and context.method_name == "__call__":
        rows, *rest = args
        return call(jax.lax.with_sharding_constraint(rows, spec("rows", "tokens", "features")), *rest, **kwargs)
    return call(*args, **kwargs)
