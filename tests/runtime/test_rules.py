"""Tests for mass_jax.runtime.rules: the table, and the meta-step on several devices against one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mass_jax.config import Config
from mass_jax.llama import Llama
from mass_jax.method import meta_step
from mass_jax.runtime import Feed, make_mesh, rules
from mass_jax.training.components import assemble
from tests.runtime.conftest import CONFIG, TASKS, learner, problem

MESHES = ("data:8", "fsdp:8", "tensor:8", "data:2,fsdp:2,tensor:2")


def run(layout, adjoint, dtype):
    """Runs a meta-step; returns (state, outputs) and the compiled program."""
    devices = jax.devices()[:1] if layout == "data:1" else None
    feed = Feed(make_mesh(layout, devices))
    state, batch = problem(dtype)
    state, adapters = feed.place(state), feed.place(batch.adapters)
    batch = feed.put(batch._replace(adapters=None), TASKS)._replace(adapters=adapters)
    with rules.use_mesh(feed.mesh), jax.numpy_dtype_promotion("standard"):
        step = jax.jit(kept_in_place, static_argnames="learner").lower(learner(adjoint), state, batch).compile()
        return step(state, batch), step


def kept_in_place(learner, state, batch):
    state, found = meta_step.meta_step(learner, state, {}, batch, jax.random.key(1))
    return rules.constrain(state), found


@functools.cache
def alone(adjoint, dtype):
    return run("data:1", adjoint, dtype)[0]


def worst(found, expected):
    """Returns the largest relative error of any leaf, in the norm of the leaf."""

    def one(a, b):
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3)

    return max(jax.tree.leaves(jax.tree.map(one, found, expected)))


def check(layout, adjoint, dtype, tolerance, part=lambda found: found):
    found, step = run(layout, adjoint, dtype)
    assert worst(part(found), part(alone(adjoint, dtype))) < tolerance
    return found, step


def meta_gradients(found):
    """Returns the outputs and the optimizer states, whose moments after one step are the meta-gradients.

    Weights are excluded, since Adam's first step amplifies rounding errors of small gradients to full size.
    """
    state, rest = found
    return state.policy_opt_state, state.scorer_opt_state, rest


def test_meta_step_matches_one_device(x64):
    """Also checks that the constraints take effect, in the program and in the new state."""
    (state, _), step = check("data:2,fsdp:2,tensor:2", "weighted", np.float64, 1e-11)
    kernel = state.policy["layers"]["mlp"]["up_proj"]["kernel"]
    assert kernel.sharding.spec == PartitionSpec(None, "fsdp", "tensor")
    assert kernel.addressable_shards[0].data.shape == (2, CONFIG.hidden_size // 2, CONFIG.intermediate_size // 2)
    text = step.as_text()
    assert "all-gather" in text
    assert "all-reduce" in text


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["weighted", "mixed", "reverse", "first_order"])
@pytest.mark.parametrize("layout", MESHES)
def test_meta_step_matches_in_float64(x64, layout, adjoint):
    check(layout, adjoint, np.float64, 1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["weighted", "mixed", "reverse", "first_order"])
@pytest.mark.parametrize("layout", MESHES)
def test_meta_step_matches_in_float32(layout, adjoint):
    check(layout, adjoint, np.float32, 1e-5, meta_gradients)


def test_shardings_place_moments_with_weights():
    state, batch = problem(np.float32)
    places = rules.shardings(make_mesh("data:2,fsdp:2,tensor:2"), (state, batch.adapters))
    policy, moments = places[0].policy, places[0].policy_opt_state.inner_state[1][0].mu
    assert jax.tree.map(lambda place: place.spec, moments) == jax.tree.map(lambda place: place.spec, policy)
    assert places[1].leaves["layers"]["mlp"]["down_proj"]["a"].spec == PartitionSpec("data", None, "tensor", None)


@pytest.mark.parametrize(
    ("changes", "name", "leaf", "expected"),
    [
        ({"model_type": "qwen2", "qkv_bias": True}, "q_proj", "bias", (None, "tensor")),
        ({"model_type": "qwen2", "qkv_bias": True}, "v_proj", "bias", (None, "tensor")),
        ({"model_type": "qwen3", "qk_norm": True}, "k_norm", "weight", (None, None)),
        ({"attention_bias": True}, "o_proj", "bias", (None, "fsdp")),
    ],
)
def test_shardings_cover_families(changes, name, leaf, expected):
    model = Llama(dataclasses.replace(CONFIG, **changes))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    places = rules.shardings(make_mesh("data:2,fsdp:2,tensor:2"), shapes)
    assert tuple(places["layers"]["self_attn"][name][leaf].spec) == expected


def test_shardings_refuse_unknown_leaf():
    with pytest.raises(ValueError, match="no rule places layers/mystery"):
        rules.shardings(make_mesh("data:8"), {"layers": {"mystery": jnp.zeros((2, 2))}})


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("tensor:8", {"num_key_value_heads": 4}, "tensor:8 of --mesh does not divide the 4 kv_heads .* take tensor:4"),
        ("tensor:8", {"vocab_size": 228}, "does not divide the 228 vocab of the model; take tensor:4"),
        ("fsdp:8", {"hidden_size": 20}, "does not divide the 20 embed"),
    ],
)
def test_check_layout_names_axis_and_fix(layout, changes, message):
    with pytest.raises(ValueError, match=message):
        rules.check_layout(make_mesh(layout), dataclasses.replace(CONFIG, **changes))


def test_check_divides_names_fix():
    with pytest.raises(ValueError, match="take data:4, or a multiple of 8 tasks"):
        rules.check_divides(make_mesh("data:8"), "tasks", 12, "--tasks_per_step")


def test_assemble_refuses_indivisible_scorer():
    with pytest.raises(ValueError, match="fsdp:8 of --mesh does not divide the 12 scorer_embed of --scorer_width"):
        assemble(Config(scorer_width=12), make_mesh("fsdp:8"))
