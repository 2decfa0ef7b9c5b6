"""Maps over problems, all at once or one group at a time.

Shape suffixes: N problems, G groups.
"""

from collections.abc import Callable
from typing import Any

import jax

from mass_jax.types import PyTree


def divisor(count: int, limit: int, multiple: int = 1) -> int:
    """Returns the largest divisor of a count that is at most `limit`, and a multiple of `multiple` if that is possible.

    Args:
        count: the count.
        limit: largest divisor to return; 0 stands for the count.
        multiple: preferred factor of the divisor.

    >>> divisor(12, 5), divisor(12, 0), divisor(12, 5, multiple=2), divisor(7, 5)
    (4, 12, 4, 1)
    """
    if not 0 < limit < count:
        return count
    found = [size for size in range(1, count + 1) if count % size == 0 and size % multiple == 0]
    return max([size for size in found if size <= limit] or found[:1] or [count])


def over_tasks(function: Callable[..., Any], at_a_time: int, *trees: PyTree, remat: bool = False) -> Any:
    """Applies a function to each problem; like `jax.vmap`, but the memory of a group is freed before the next.

    On a mesh, each group has as many problems of every device on the data axis, so that no problem moves.

    Args:
        function: function of one problem's leaves.
        at_a_time: largest number of problems at a time, of which the largest divisor of N is taken; 0 is all of them.
        *trees: arguments, whose leaves have the leading axis N.
        remat: whether to recompute a group in the backward pass, instead of storing the activations of all groups.

    Returns:
        The results, stacked along a leading axis N.

    >>> import jax.numpy as jnp
    >>> over_tasks(lambda x: 2 * x, 1, jnp.arange(3)).tolist()
    [0, 2, 4]
    """
    count = jax.tree.leaves(trees)[0].shape[0]
    devices = _data_axis(count)
    size = divisor(count, at_a_time, devices)
    if size == count:
        return jax.vmap(function)(*trees)
    apply = jax.vmap(function)
    if remat:
        apply = jax.checkpoint(apply, prevent_cse=False)  # the scan keeps the passes apart

    def group(leaf: jax.Array) -> jax.Array:
        parts = leaf.reshape(devices, count // size, size // devices, *leaf.shape[1:]).swapaxes(0, 1)
        return parts.reshape(count // size, size, *leaf.shape[1:])

    def ungroup(leaf: jax.Array) -> jax.Array:
        parts = leaf.reshape(count // size, devices, size // devices, *leaf.shape[2:]).swapaxes(0, 1)
        return parts.reshape(count, *leaf.shape[2:])

    results_G = jax.lax.map(lambda arguments: apply(*arguments), jax.tree.map(group, trees))
    return jax.tree.map(ungroup, results_G)


def _data_axis(count: int) -> int:
    """Returns the number of devices that the mesh in use splits `count` problems over; 1 if it does not."""
    mesh: Any = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else dict(mesh.shape).get("data", 1)
    return devices if count % devices == 0 else 1
