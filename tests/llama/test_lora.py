"""Low-rank adapters: their effect, combination and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import projections
from mass_jax.llama import Llama, lora, losses, peft, suffix
from mass_jax.types import Adapter


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


def test_concatenate_joins_shared_and_batched(x64, config, make_adapter, assert_close):
    shared = make_adapter(config, rank=2, targets=("k_proj",), scale=0.5)
    tasks = lora.stack([make_adapter(config, rank=1, seed=s, targets=("k_proj",), scale=3.0) for s in (5, 6, 7)])
    outside = lora.concatenate(shared, tasks)
    assert (outside.batched, outside.scale) == (True, 1.0)
    inside = jax.vmap(lambda leaves: lora.concatenate(shared, tasks.one(leaves)).leaves)(tasks.leaves)
    assert_close(outside.leaves, inside, 1e-15)
    assert_close(lora.split(outside)[1], lora.concatenate(shared, lora.split(tasks)[1]), 1e-15)


def test_scaled_multiplies_effect(x64, config, make_params, make_adapter, assert_close):
    params, adapter = make_params(config), make_adapter(config)
    effect_of = jax.jit(lambda adapter: jax.tree.map(jnp.subtract, lora.merge(params, adapter), params))
    effect, tripled = effect_of(adapter), effect_of(lora.scaled(adapter, 3.0))
    assert_close(tripled, jax.tree.map(lambda x: 3.0 * np.asarray(x), effect), 1e-12)


def test_scale_multiplies_effect(x64, config, make_params, make_adapter, tokens_BT, assert_close):
    model, params, adapter = Llama(config), make_params(config), make_adapter(config, scale=3.0)
    unit = lora.scaled(Adapter(adapter.leaves), 3.0)
    assert_close(lora.merge(params, adapter), lora.merge(params, unit), 1e-12)
    assert_close(lora.folded(adapter).leaves, unit.leaves, 1e-15)
    found, wanted = (jax.jit(model.apply)(lora.variables(params, each), tokens_BT) for each in (adapter, unit))
    assert_close(found, wanted, 1e-12)


def test_scale_is_constant_to_differentiation(config, make_params, make_adapter, tokens_BT):
    """Training changes the leaves only, at the scale's rate."""
    model, params, adapter = Llama(config), make_params(config), make_adapter(config, scale=0.5, targets=("q_proj",))

    @jax.jit
    def loss(adapter):
        return jnp.mean(losses.token_nll(model, lora.variables(params, adapter), tokens_BT))

    grads = jax.jit(jax.grad(loss))(adapter)
    assert (grads.scale, grads.batched) == (0.5, False)
    assert jax.tree.structure(grads) == jax.tree.structure(adapter)
    optimizer = optax.sgd(0.1)
    updates, _ = optimizer.update(grads, optimizer.init(adapter))
    trained = optax.apply_updates(adapter, updates)
    assert trained.scale == 0.5
    assert float(loss(trained)) < float(loss(adapter))


def test_vmapped_adapters_share_base_weights(config, make_params, make_adapter, tokens_BT):
    """A vmapped loss holds no copy of the base weights per task."""
    model, params = Llama(config), make_params(config)
    each = [make_adapter(config, rank=1, seed=seed, scale=2.0) for seed in range(4)]
    tasks = lora.stack(each)

    @jax.jit
    def loss(leaves, tokens_BT):
        return jnp.mean(losses.token_nll(model, lora.variables(params, tasks.one(leaves)), tokens_BT))

    found = jax.vmap(loss, in_axes=(0, None))(tasks.leaves, tokens_BT)
    wanted = [loss(one.leaves, tokens_BT) for one in each]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    jaxpr = str(jax.make_jaxpr(jax.vmap(loss, in_axes=(0, None)))(tasks.leaves, tokens_BT))
    width, inner = config.hidden_size, config.intermediate_size
    assert f"f32[{width},{inner}]" in jaxpr
    assert f"f32[4,{width},{inner}]" not in jaxpr


def test_adapter_mapped_as_a_whole_is_refused(config, make_params, make_adapter):
    """`jax.vmap` and `jax.lax.map` change the rank of the leaves and not the flag, in both directions."""
    params, tasks = make_params(config), lora.stack([make_adapter(config, seed=seed) for seed in range(3)])
    for inside in (lambda adapter: lora.merge(params, adapter), lambda adapter: lora.variables(params, adapter)):
        for each in (jax.vmap(inside), functools.partial(jax.lax.map, inside)):
            with pytest.raises(ValueError, match=r"batched adapter have rank \[3\] instead of 4"):
                each(tasks)
    drawn = jax.vmap(lambda key: lora.init(key, config, 2))(jax.random.split(jax.random.key(0), 3))
    for use in (lora.split, lambda adapter: lora.concatenate(adapter, tasks), lambda a: lora.variables(params, a)):
        with pytest.raises(ValueError, match=r"shared adapter have rank \[4\] instead of 3"):
            use(drawn)


def test_adapter_of_the_other_kind_is_refused(config, make_params, make_adapter, tmp_path):
    params, shared = make_params(config), make_adapter(config)
    tasks = lora.stack([shared, shared])
    for use in (lora.variables, lora.merge):
        with pytest.raises(ValueError, match=r"is batched, but a shared one is needed: .*lora\.split"):
            use(params, tasks)
    with pytest.raises(ValueError, match="is batched, but a shared one"):
        peft.save(tmp_path, tasks)
    with pytest.raises(ValueError, match="is batched, but a shared one"):
        suffix.split(Llama(config), params, 1, tasks)
    with pytest.raises(ValueError, match=r"is shared, but a batched one is needed: use lora\.stack"):
        lora.split(shared)


def test_stack_refuses_different_scales(config, make_adapter):
    with pytest.raises(ValueError, match=r"scales \[1\.0, 2\.0\]"):
        lora.stack([make_adapter(config), make_adapter(config, scale=2.0)])


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
