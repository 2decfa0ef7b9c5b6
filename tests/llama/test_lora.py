"""Adapters: what they add, how they combine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama import Llama, lora, losses


def test_a_fresh_adapter_changes_no_bit(config, make_params, tokens_BT):
    model, params = Llama(config), make_params(config)
    fresh = lora.init(jax.random.key(0), config, 2)
    base = model.apply({"params": params}, tokens_BT)
    assert (model.apply(lora.variables(params, fresh), tokens_BT) == base).all()


def test_merged_equals_applied(x64, config, make_params, make_adapter, tokens_BT, assert_close):
    model, params = Llama(config), make_params(config)
    adapter = make_adapter(config, targets=("q_proj", "down_proj"))
    merged = lora.merge(params, adapter)
    found = model.apply({"params": merged}, tokens_BT)
    assert_close(found, model.apply(lora.variables(params, adapter), tokens_BT), 1e-12)
    assert float(jnp.max(jnp.abs(found - model.apply({"params": params}, tokens_BT)))) > 1e-3


def test_concatenation_is_the_sum(x64, config, make_params, make_adapter, tokens_BT, assert_close):
    model, params = Llama(config), make_params(config)
    first, second = make_adapter(config, rank=2), make_adapter(config, rank=3, seed=11)
    both = model.apply(lora.variables(params, lora.concatenate(first, second)), tokens_BT)
    merged = lora.merge(lora.merge(params, first), second)
    assert_close(both, model.apply({"params": merged}, tokens_BT), 1e-12)


def test_concatenation_broadcasts_a_task_axis_outside_and_inside_vmap(x64, config, make_adapter, assert_close):
    shared = make_adapter(config, rank=2)
    tasks = jax.tree.map(lambda *x: jnp.stack(x), *(make_adapter(config, rank=1, seed=s) for s in (5, 6, 7)))
    outside = lora.concatenate(shared, tasks)
    inside = jax.vmap(lora.concatenate, in_axes=(None, 0))(shared, tasks)
    assert_close(outside, inside, 1e-15)
    one = lora.concatenate(shared, lora.split(tasks, 3)[1])
    assert_close(lora.split(outside, 3)[1], one, 1e-15)


def test_scaling_scales_the_effect(x64, config, make_params, make_adapter, assert_close):
    params, adapter = make_params(config), make_adapter(config)
    effect = jax.tree.map(jnp.subtract, lora.merge(params, adapter), params)
    tripled = jax.tree.map(jnp.subtract, lora.merge(params, lora.scaled(adapter, 3.0)), params)
    assert_close(tripled, jax.tree.map(lambda x: 3.0 * x, effect), 1e-12)


def test_adapters_of_many_tasks_share_one_base(config, make_params, make_adapter, tokens_BT):
    """Temporaries of a vmapped loss stay below one more copy of the base for each task."""
    model, params = Llama(config), make_params(config)
    tasks = jax.tree.map(lambda *x: jnp.stack(x), *(make_adapter(config, rank=1, seed=s) for s in range(4)))

    def loss(adapter, tokens_BT):
        return jnp.mean(losses.token_nll(model, lora.variables(params, adapter), tokens_BT))

    found = jax.vmap(loss, in_axes=(0, None))(tasks, tokens_BT)
    wanted = jnp.stack([loss(one, tokens_BT) for one in lora.split(tasks, 4)])
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
def test_a_wrong_request_is_named(config, arguments, words):
    with pytest.raises(ValueError, match=words):
        lora.init(jax.random.key(0), config, **{"rank": 1, **arguments})


def test_adapters_of_different_targets_do_not_concatenate(config, make_adapter):
    with pytest.raises(ValueError, match="differ in targets"):
        lora.concatenate(make_adapter(config), make_adapter(config, targets=("q_proj",)))
