"""Maps over groups of problems equal `jax.vmap`, with gradients, and move no problem between devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from mass_jax.method.groups import over_tasks
from mass_jax.runtime import make_mesh, use_mesh
from mass_jax.runtime.rules import spec

ROWS_NT = np.arange(24.0, dtype=np.float32).reshape(12, 2)


def loss(scale, rows_NT, at_a_time):
    """Returns a loss whose gradient needs the activations of every problem."""
    found = over_tasks(lambda row_T: {"sum": jnp.sin(scale * row_T).sum()}, at_a_time, rows_NT, remat=True)
    return (found["sum"] * jnp.arange(1.0, 13.0)).sum()


@pytest.mark.parametrize("at_a_time", [1, 5, 12])
def test_over_tasks_equals_vmap(at_a_time):
    expected = jax.value_and_grad(loss)(jnp.float32(0.1), ROWS_NT, 0)
    np.testing.assert_allclose(jax.value_and_grad(loss)(jnp.float32(0.1), ROWS_NT, at_a_time), expected, rtol=1e-5)


def test_over_tasks_keeps_problems_on_their_devices():
    mesh = make_mesh("data:4", jax.devices()[:4])
    rows_NT = jax.device_put(ROWS_NT, NamedSharding(mesh, spec("tasks")))

    def mapped(rows_NT):
        return over_tasks(lambda row_T: jnp.sin(row_T), 4, rows_NT)

    with use_mesh(mesh):
        compiled = jax.jit(mapped, out_shardings=rows_NT.sharding).lower(rows_NT).compile()
        np.testing.assert_allclose(compiled(rows_NT), np.sin(ROWS_NT), rtol=1e-6)
    text = compiled.as_text()
    assert "while" in text  # three groups
    assert not any(name in text for name in ("all-gather", "all-to-all", "collective-permute", "all-reduce"))
