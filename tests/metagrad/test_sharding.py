"""Tests of meta-gradients on a mesh, with examples sharded and parameters replicated."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mass_jax import metagrad as mg
from tests.metagrad.conftest import make


@pytest.fixture
def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def gradient(toy):
    def of(lora, weights_M, batch):
        return mg.meta_gradient(
            mg.WeightedLoss(toy.examples), toy.outer, lora, weights_M, batch, toy.outer_batch,
            optimizer=optax.sgd(0.3), num_steps=3, adjoint=mg.WeightedMixedMode(), wrt_params=True,
        )  # fmt: skip

    return of


def test_meta_gradient_is_equal_with_sharded_examples(x64, mesh, fast):
    toy = make(jax.random.key(0), count=8)
    split, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    args = jax.device_put(toy.lora, everywhere), *jax.device_put((toy.weights, toy.batch), split)
    sharded = fast(gradient(toy)).lower(*args).compile()
    assert "all-reduce" in sharded.as_text()  # gradients are summed over devices
    alone = fast(gradient(toy))(toy.lora, toy.weights, toy.batch)
    chex.assert_trees_all_close(sharded(*args), alone, rtol=1e-11, atol=1e-13)


def test_mixed_grad_is_equal_with_sharded_examples(x64, mesh, fast):
    toy = make(jax.random.key(0), count=8)

    def inner(lora, weights_M, batch):
        return jnp.vdot(weights_M, toy.examples(lora, batch))

    def outer(weights_M, batch):
        lora = toy.lora
        for _ in range(2):
            lora = jax.tree.map(lambda p, g: p - 0.3 * g, lora, mg.mixed_grad(inner)(lora, weights_M, batch))
        return toy.outer(lora, toy.outer_batch)

    split = NamedSharding(mesh, PartitionSpec("data"))
    found = fast(jax.grad(outer))(*jax.device_put((toy.weights, toy.batch), split))
    assert found.sharding.is_equivalent_to(split, 1)
    np.testing.assert_allclose(found, fast(jax.grad(outer))(toy.weights, toy.batch), rtol=1e-11, atol=1e-13)
