"""The guard and the table of optimizers tell the truth."""

import jax
import jax.numpy as jnp
import optax
import pytest

from mass_jax import metagrad as mg

EXACT = [name for name, support in mg.SUPPORT.items() if support.exact]
REFUSED = [name for name, support in mg.SUPPORT.items() if not support.exact]
NEEDY = [name for name, support in mg.SUPPORT.items() if support.settings]


def build(name):
    found = optax
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", EXACT)
def test_optimizers_of_the_table_are_exact_at_lora_zero(name, toy, fast):
    def gradient(adjoint):
        return mg.meta_gradient(
            mg.WeightedLoss(toy.examples), toy.outer, toy.lora, toy.weights, toy.batch, toy.outer_batch,
            optimizer=mg.make_optimizer(name, 1e-2), num_steps=2, adjoint=adjoint,
        ).meta  # fmt: skip

    reverse, weighted = fast(lambda: (gradient(mg.ReverseUnroll()), gradient(mg.WeightedMixedMode())))()
    scale = float(jnp.linalg.norm(reverse))
    assert scale > 0
    assert float(jnp.linalg.norm(reverse - weighted)) < 1e-10 * scale


@pytest.mark.parametrize("name", ["sgd", "adamw", "contrib.schedule_free_sgd"])
def test_guard_passes_what_the_table_calls_exact(name):
    mg.check_optimizer(mg.make_optimizer(name, 1e-2))


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in ("lbfgs", "polyak_sgd")])
def test_guard_and_table_refuse_alike(name):
    with pytest.raises(ValueError, match=r"NaN at \['a'\]|identically zero"):
        mg.check_optimizer(build(name)(1e-2))
    with pytest.raises(ValueError, match="is refused"):
        mg.make_optimizer(name, 1e-2)


@pytest.mark.parametrize("name", ["adam", "lamb", "contrib.ademamix"])
def test_guard_names_the_mend(name):
    assert name in NEEDY
    with pytest.raises(ValueError, match="eps_root=1e-8"):
        mg.check_optimizer(build(name)(1e-2))


def test_guard_on_a_real_adapter_and_gradient():
    params = {"layer": {"a": jnp.ones((3, 2)), "b": jnp.zeros((2, 3))}}
    grads = {"layer": {"a": jnp.zeros((3, 2)), "b": jnp.ones((2, 3))}}
    with pytest.raises(ValueError, match=r"\['layer'\]\['a'\]"):
        mg.check_optimizer(optax.adamw(1e-3), params, grads)
    mg.check_optimizer(optax.adamw(1e-3), params, jax.tree.map(jnp.ones_like, grads))
    with pytest.raises(ValueError, match="without grads"):
        mg.check_optimizer(optax.adamw(1e-3), params)


def test_warmup_from_rate_zero_needs_a_second_step():
    optimizer = optax.sgd(optax.linear_schedule(0.0, 0.1, 1))
    mg.check_optimizer(optimizer, num_steps=2)
    with pytest.raises(ValueError, match="identically zero"):
        mg.check_optimizer(optimizer, num_steps=1)


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="'sdg' is unknown"):
        mg.make_optimizer("sdg", 0.1)
