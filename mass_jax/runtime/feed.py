"""Transfers between hosts and the mesh: each process feeds its own slice of a batch of problems.

Shape suffixes: N problems of all processes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mass_jax.runtime import rules
from mass_jax.types import PyTree

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Feed:
    """Splits batches of N problems over the data axis of a mesh.

    If N is not a multiple of the size of the data axis, every process handles all problems.

    Attributes:
        mesh: device mesh from `make_mesh`.
        whole: whether every process handles all problems on the host, while devices still split them. Evaluation uses
            this.

    >>> from mass_jax.runtime.mesh import make_mesh
    >>> feed = Feed(make_mesh("data:1", jax.devices()[:1]))
    >>> feed.rows(4), feed.get(feed.put(np.arange(4), 4), 4).tolist()
    (slice(0, 4, None), [0, 1, 2, 3])
    """

    mesh: Mesh
    whole: bool = False

    def rows(self, count: int) -> slice:
        """Returns the slice of `count` problems that this process handles."""
        if self.whole:
            return slice(0, count)
        places = self.sharding(count).addressable_devices_indices_map((count,)).values()
        bounds = [place[0].indices(count)[:2] for place in places if place]
        return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))

    def mine(self, tasks: Sequence[Item]) -> list[Item]:
        """Returns the problems that this process handles."""
        return list(tasks[self.rows(len(tasks))])

    def put(self, tree: PyTree, count: int) -> PyTree:
        """Builds global arrays [N, ...] from the arrays of this process's problems [n, ...].

        Args:
            tree: arrays with a leading axis of this process's problems.
            count: number of problems N of all processes.
        """
        sharding = self.sharding(count)

        def one(leaf: Any) -> jax.Array:
            if self.whole:
                return _from_host(leaf, sharding)
            return jax.make_array_from_process_local_data(sharding, np.asarray(leaf), (count, *leaf.shape[1:]))

        return jax.tree.map(one, tree)

    def get(self, tree: PyTree, count: int) -> PyTree:
        """Returns this process's part [n, ...] of global arrays [N, ...] as NumPy arrays.

        Args:
            tree: global arrays with a leading axis of problems.
            count: number of problems N of all processes.
        """
        sharding = NamedSharding(self.mesh, PartitionSpec()) if self.whole else self.sharding(count)

        def one(leaf: jax.Array) -> np.ndarray:
            placed = leaf if leaf.sharding.is_equivalent_to(sharding, leaf.ndim) else jax.device_put(leaf, sharding)
            parts = {shard.index[0].indices(count)[0]: shard.data for shard in placed.addressable_shards}
            return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])

        return jax.tree.map(one, tree)

    def spread(self, keys_N: jax.Array) -> jax.Array:
        """Places random keys [N], which every process has in full, with their problems."""
        data = jax.random.key_data(keys_N)
        return _wrap_keys(_from_host(data, self.sharding(len(keys_N))))

    def place(self, tree: PyTree) -> PyTree:
        """Places parameters, adapters or a state according to the table in `rules`."""
        return jax.tree.map(_from_host, tree, rules.shardings(self.mesh, tree))

    def sharding(self, count: int) -> NamedSharding:
        """Returns the sharding of global arrays [N, ...] of `count` problems."""
        divides = count % self.mesh.shape["data"] == 0
        return NamedSharding(self.mesh, rules.spec("tasks") if divides else PartitionSpec())


def _from_host(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """Places an array that every process has in full, or reshards a global one."""
    if sharding.is_fully_addressable or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return jax.device_put(leaf, sharding)
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


@jax.jit
def _wrap_keys(data_N2: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(data_N2)
