"""The table of rules, and the whole meta-step under it: split over devices it finds what one device finds."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mass_jax.config import Config
from mass_jax.method import meta_step
from mass_jax.runtime import Feed, make_mesh, rules
from mass_jax.training.components import assemble
from tests.runtime.conftest import CONFIG, TASKS, learner, problem

MESHES = ("data:8", "fsdp:8", "tensor:8", "data:2,fsdp:2,tensor:2")


def run(layout, adjoint, dtype):
    """The state after a meta-step, what it found, and the compiled program."""
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
    """Largest relative error of any leaf, in the norm of the leaf."""

    def one(a, b):
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3)

    return max(jax.tree.leaves(jax.tree.map(one, found, expected)))


def check(layout, adjoint, dtype, tolerance, part=lambda found: found):
    found, step = run(layout, adjoint, dtype)
    assert worst(part(found), part(alone(adjoint, dtype))) < tolerance
    return found, step


def meta_gradients(found):
    """What was found, and the moments, which after one step are the meta-gradients.

    The weights are left out: Adam's first step divides a gradient by its own size, where it is rounding too.
    """
    state, rest = found
    return state.policy_opt_state, state.scorer_opt_state, rest


def test_split_over_every_axis_the_meta_step_is_that_of_one_device(x64):
    """And the constraints are real on CPU: in the compiled program, and in where the new state lies."""
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
def test_every_mesh_and_adjoint_in_float64(x64, layout, adjoint):
    check(layout, adjoint, np.float64, 1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["weighted", "mixed", "reverse", "first_order"])
@pytest.mark.parametrize("layout", MESHES)
def test_every_mesh_and_adjoint_in_float32(layout, adjoint):
    check(layout, adjoint, np.float32, 1e-5, meta_gradients)


def test_every_leaf_of_a_state_has_a_place_and_moments_lie_with_their_weights():
    state, batch = problem(np.float32)
    places = rules.shardings(make_mesh("data:2,fsdp:2,tensor:2"), (state, batch.adapters))
    policy, moments = places[0].policy, places[0].policy_opt_state.inner_state[1][0].mu
    assert jax.tree.map(lambda place: place.spec, moments) == jax.tree.map(lambda place: place.spec, policy)
    assert places[1]["layers"]["mlp"]["down_proj"]["a"].spec == PartitionSpec("data", None, "tensor", None)


def test_a_leaf_that_nobody_knows_is_refused():
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
def test_a_model_that_does_not_divide_names_axis_and_fix(layout, changes, message):
    with pytest.raises(ValueError, match=message):
        rules.check_layout(make_mesh(layout), dataclasses.replace(CONFIG, **changes))


def test_tasks_that_do_not_divide_name_the_fix():
    with pytest.raises(ValueError, match="take data:4, or a multiple of 8 tasks"):
        rules.check_divides(make_mesh("data:8"), "tasks", 12, "--tasks_per_step")


def test_a_scorer_that_does_not_divide_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="fsdp:8 of --mesh does not divide the 12 scorer_embed of --scorer_width"):
        assemble(Config(scorer_width=12), make_mesh("fsdp:8"))
