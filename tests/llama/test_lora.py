"""Low-rank adapters: their effect, combination and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax import projections
from mass_jax.llama import Llama, lora, losses


def test_fresh_adapter_has_no_effect(config, make_params, tokens_BT):
    model, params = Llama(config), make_params(config)
    fresh = lora.init(jax.random.key(0), config, 2)
    base = jax.jit(model.apply)({"params": params}, tokens_BT)
    np.testing.assert_array_equal(jax.jit(model.apply)(lora.variables(params, fresh), tokens_BT), base)


def test_merge_matches_applied_adapter(x64, config, make_params, make_adapter, tokens_BT, assert_close):
    apply, params = jax.jit(Llama(config).apply), make_params(config)
    adapter = make_adapter(config, targets=("q_proj", "down_proj"))
    found = apply({"params": lora.merge(params, adapter)}, tokens_BT)
    assert_close(found, apply(lora.variables(params, adapter), tokens_BT), 1e-12)
    assert np.max(np.abs(found - apply({"params": params}, tokens_BT))) > 1e-3


def test_concatenate_adds_effects(x64, config, make_params, make_adapter, assert_close):
    params = make_params(config)
    first, second = make_adapter(config, rank=2), make_adapter(config, rank=3, seed=11)
    both = jax.jit(lora.merge)(params, lora.concatenate(first, second))
    assert_close(both, jax.jit(lambda *x: lora.merge(lora.merge(*x[:2]), x[2]))(params, first, second), 1e-12)


def test_concatenate_broadcasts_task_axis(x64, config, make_adapter, assert_close):
    shared = make_adapter(config, rank=2, targets=("k_proj",))
    tasks = jax.tree.map(
        lambda *x: jnp.stack(x), *(make_adapter(config, rank=1, seed=s, targets=("k_proj",)) for s in (5, 6, 7))
    )
    outside = lora.concatenate(shared, tasks)
    inside = jax.vmap(lora.concatenate, in_axes=(None, 0))(shared, tasks)
    assert_close(outside, inside, 1e-15)
    one = lora.concatenate(shared, lora.split(tasks, 3)[1])
    assert_close(lora.split(outside, 3)[1], one, 1e-15)


def test_scaled_multiplies_effect(x64, config, make_params, make_adapter, assert_close):
    params, adapter = make_params(config), make_adapter(config)
    effect_of = jax.jit(lambda adapter: jax.tree.map(jnp.subtract, lora.merge(params, adapter), params))
    effect, tripled = effect_of(adapter), effect_of(lora.scaled(adapter, 3.0))
    assert_close(tripled, jax.tree.map(lambda x: 3.0 * np.asarray(x), effect), 1e-12)


def test_vmapped_adapters_share_base_weights(config, make_params, make_adapter, tokens_BT):
    """A vmapped loss holds no copy of the base weights per task."""
    model, params = Llama(config), make_params(config)
    each = [make_adapter(config, rank=1, seed=seed) for seed in range(4)]
    tasks = jax.tree.map(lambda *x: np.stack(x), *each)

    @jax.jit
    def loss(adapter, tokens_BT):
        return jnp.mean(losses.token_nll(model, lora.variables(params, adapter), tokens_BT))

    found = jax.vmap(loss, in_axes=(0, None))(tasks, tokens_BT)
    wanted = [loss(one, tokens_BT) for one in each]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    jaxpr = str(jax.make_jaxpr(jax.vmap(loss, in_axes=(0, None)))(tasks, tokens_BT))
    width, inner = config.hidden_size, config.intermediate_size
    assert f"f32[{width},{inner}]" in jaxpr
    assert f"f32[4,{width},{inner}]" not in jaxpr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"targets": ("qkv",)}, "'qkv'"),
        ({"targets": ()}, "empty"),
        ({"targets": ("q_proj",) * 2}, "repeat"),
    ],
)
def test_invalid_argument_is_named(config, arguments, words):
    with pytest.raises(ValueError, match=words):
        lora.init(jax.random.key(0), config, **{"rank": 1, **arguments})


def test_concatenate_refuses_different_targets(config, make_adapter):
    with pytest.raises(ValueError, match="differ in targets"):
        lora.concatenate(make_adapter(config), make_adapter(config, targets=("q_proj",)))


def test_is_batched_tells_shared_from_batched(config, make_adapter):
    shared = make_adapter(config)
    assert not lora.is_batched(None)
    assert not lora.is_batched(shared)
    assert lora.is_batched(jax.tree.map(lambda leaf: leaf[None], shared))


def test_projection_table_matches_model(config, make_params):
    """The table names every kernel of a block, with its parent and its shape."""
    layers = make_params(config)["layers"]
    kernels = {
        (parent, name): leaf["kernel"].shape[1:]
        for parent, block in layers.items()
        for name, leaf in block.items()
        if isinstance(leaf, dict) and "kernel" in leaf
    }
    table = {(row.parent, name): lora.shape_of(config, name) for name, row in projections.TABLE.items()}
    assert kernels == table
