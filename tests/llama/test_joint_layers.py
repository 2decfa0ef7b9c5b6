"""Layers with products of all tasks at once, compared with one product per task."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from mass_jax.llama import Llama, decode, joint_layers, lora

PROMPT = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.int32)
LENGTHS = np.array([3, 2, 1], np.int32)


@functools.partial(jax.jit, static_argnames=("model", "joint"))
def _logits(model: Llama, params, adapters, joint: bool):
    """Logits of prefill and of one step."""
    params, layers = decode.unstack(params), decode.unstack_adapter(adapters, 2)
    if joint:
        params, layers = joint_layers.join(params, layers)
    first_NV, caches = decode.prefill(model, params, layers, PROMPT, LENGTHS, 2, 2)
    tokens_NM = jnp.array([[1, 2], [3, 4], [5, 6]])
    second_NMV, _ = decode.step(model, params, layers, caches, tokens_NM, LENGTHS, jnp.array(0))
    return first_NV, second_NMV


@pytest.mark.parametrize(
    "targets",
    [lora.TARGETS, ("v_proj", "o_proj", "up_proj"), None],
    ids=["an adapter per task", "one adapter on some projections", "none"],
)
def test_joint_layers_compute_the_same_logits(targets, config, make_params, make_adapter, assert_close):
    config = dataclasses.replace(config, attention_bias=True)
    adapters = None
    if targets is not None:
        # Ranks 8 and 2: A is appended to the weights only if its columns are aligned.
        each = [make_adapter(config, 8 if len(targets) > 3 else 2, targets=targets, seed=seed) for seed in range(3)]
        adapters = lora.stack(each) if targets == lora.TARGETS else dataclasses.replace(each[0], scale=2.0)
    args = Llama(config), make_params(config), adapters
    assert_close(_logits(*args, joint=True), _logits(*args, joint=False), 1e-5)


def test_tasks_do_not_affect_each_other(config, make_params, make_adapter):
    """Bit for bit: columns of another task are zero, whatever they contain."""
    adapters = lora.stack([make_adapter(config, seed=seed) for seed in range(3)])
    other = adapters.many(jax.tree.map(lambda leaf: leaf.at[2].mul(-3.0), adapters.leaves))
    args = Llama(config), make_params(config)
    one, two = (_logits(*args, each, joint=True) for each in (adapters, other))
    for before, after in zip(one, two, strict=True):
        np.testing.assert_array_equal(before[:2], after[:2])
        assert np.any(before[2] != after[2])


def test_layers_are_joined_on_one_gpu_in_bfloat16(config, make_params, make_adapter, monkeypatch):
    adapters = lora.stack([make_adapter(config, seed=seed) for seed in range(3)])
    layers = jax.tree.map(np.asarray, decode.unstack_adapter(adapters, 2))
    single = make_params(config)
    half = jax.tree.map(lambda leaf: np.asarray(leaf, jnp.bfloat16), single)

    def suits(platform: str, params=half, devices: int = 1) -> bool:
        mesh = AbstractMesh((devices,), ("data",), abstract_device=AbstractDevice(platform, None, platform))
        with jax.sharding.use_abstract_mesh(mesh):
            return joint_layers.suits(Llama(config), params, layers)

    assert suits("gpu")
    assert not suits("cpu")
    assert not suits("tpu")
    assert not suits("gpu", params=single)
    assert not suits("gpu", devices=2)
    monkeypatch.setattr(joint_layers, "MOST_COLUMNS", 5)  # of 3 tasks with rank 2
    assert not suits("gpu")
