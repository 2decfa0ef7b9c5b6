"""Between the host and the mesh: each process feeds its own slice of the tasks, and gets back what belongs to it.

Letters: N tasks of all processes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mass_jax.runtime import rules

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Feed:
    """Slices of N tasks over the data axis; where N does not divide, every process handles all of them.

    Args:
        mesh: from `make_mesh`.
        whole: every process handles all tasks on the host, and the devices still split them: for evaluation, whose
            host work is the same on all.

    >>> from mass_jax.runtime.mesh import make_mesh
    >>> feed = Feed(make_mesh("data:1", jax.devices()[:1]))
    >>> feed.rows(4), feed.get(feed.put(np.arange(4), 4), 4).tolist()
    (slice(0, 4, None), [0, 1, 2, 3])
    """

    mesh: Mesh
    whole: bool = False

    def rows(self, count: int) -> slice:
        """Which of `count` tasks this process handles."""
        if self.whole:
            return slice(0, count)
        places = self._sharding(count).addressable_devices_indices_map((count,)).values()
        bounds = [place[0].indices(count)[:2] for place in places if place]
        return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))

    def mine(self, tasks: Sequence[Item]) -> list[Item]:
        """This process's part of all tasks."""
        return list(tasks[self.rows(len(tasks))])

    def put(self, tree: Any, count: int) -> Any:
        """Arrays of this process's tasks [n, ...] as its part of global ones [N, ...]."""
        sharding = self._sharding(count)

        def one(leaf: Any) -> jax.Array:
            if self.whole:
                return _from_host(leaf, sharding)
            return jax.make_array_from_process_local_data(sharding, np.asarray(leaf), (count, *leaf.shape[1:]))

        return jax.tree.map(one, tree)

    def get(self, tree: Any, count: int) -> Any:
        """This process's part [n, ...] of global arrays [N, ...], on the host."""
        sharding = NamedSharding(self.mesh, PartitionSpec()) if self.whole else self._sharding(count)

        def one(leaf: jax.Array) -> np.ndarray:
            placed = leaf if leaf.sharding.is_equivalent_to(sharding, leaf.ndim) else jax.device_put(leaf, sharding)
            parts = {shard.index[0].indices(count)[0]: shard.data for shard in placed.addressable_shards}
            return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])

        return jax.tree.map(one, tree)

    def spread(self, keys_N: jax.Array) -> jax.Array:
        """Random keys that every process has whole, each where its task is."""
        data = jax.random.key_data(keys_N)
        return _wrap_keys(_from_host(data, self._sharding(len(keys_N))))

    def place(self, tree: Any) -> Any:
        """Weights, adapters or a state, where the table of rules says."""
        return jax.tree.map(_from_host, tree, rules.shardings(self.mesh, tree))

    def _sharding(self, count: int) -> NamedSharding:
        divides = count % self.mesh.shape["data"] == 0
        return NamedSharding(self.mesh, rules.spec("tasks") if divides else PartitionSpec())


def _from_host(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """An array that every process has whole, or one that is global already, placed anew."""
    if sharding.is_fully_addressable or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return jax.device_put(leaf, sharding)
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


@jax.jit
def _wrap_keys(data_N2: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(data_N2)
