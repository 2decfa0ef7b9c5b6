"""Tests for mass_jax.runtime.feed in one process with eight devices; test_distributed.py covers several."""

import jax
import numpy as np
import pytest

from mass_jax.runtime import Feed, make_mesh


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("count", [8, 6])  # 6 is not divisible by 8 devices
@pytest.mark.parametrize("layout", ["data:8", "data:2,fsdp:4"])
def test_get_inverts_put(layout, count, whole):
    feed = Feed(make_mesh(layout), whole)
    given = {"a": np.arange(count * 3).reshape(count, 3), "b": np.arange(count) > 2}
    put = feed.put(given, count)
    doubled = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf | leaf, tree))(put)
    jax.tree.map(np.testing.assert_array_equal, feed.get(doubled, count), given)
    assert feed.rows(count) == slice(0, count)
    split = count % feed.mesh.shape["data"] == 0
    assert put["a"].sharding.is_fully_replicated is not split


def test_spread_keeps_keys():
    feed, keys_N = Feed(make_mesh("data:8")), jax.random.split(jax.random.key(0), 8)
    spread = feed.spread(keys_N)
    np.testing.assert_array_equal(jax.random.key_data(spread), jax.random.key_data(keys_N))
    assert len(spread.sharding.device_set) == 8
