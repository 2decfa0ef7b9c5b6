"""Tests of compiled memory: mixed mode stays close to first order and far below reverse mode."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from mass_jax import metagrad as mg
from third_party.peers import problem

SIZE = problem.Size(8, 32, 64, 4, 2, 256, 2, 8, 64, 2)


def temporaries(fast, adjoint, remat="block", num_steps=2, examples=8, **chunks):
    size = dataclasses.replace(SIZE, examples=examples)
    shapes = jax.eval_shape(lambda key: problem.draw(key, size), jax.random.key(0))

    def gradient(data):
        losses_of = problem.example_losses(size, data.base, remat, 16)
        return mg.meta_gradient(
            mg.WeightedLoss(losses_of, **chunks), lambda p, b: jnp.mean(losses_of(p, b)), data.params, data.weights_M,
            data.tokens_MT, data.outer_BT, optimizer=optax.sgd(0.1), num_steps=num_steps, adjoint=adjoint,
        ).meta  # fmt: skip

    return fast(gradient).lower(shapes).compile().memory_analysis().temp_size_in_bytes


def test_weighted_mixed_mode_needs_little_memory(fast):
    of = functools.partial(temporaries, fast)
    lean = of(mg.WeightedMixedMode(), product_chunk=4)
    assert lean < 1.7 * of(mg.FirstOrder())
    assert lean < of(mg.ReverseUnroll("step")) / 3
    assert lean < of(mg.ReverseUnroll(), remat="none") / 20


def test_chunked_memory_is_constant_in_examples_and_steps(fast):
    of = functools.partial(temporaries, fast, mg.WeightedMixedMode(), chunk=4, product_chunk=2)
    # One program with more of both: its memory is at least that of more examples or more steps alone.
    assert of(examples=32, num_steps=8) < 1.15 * of()


def test_remat_stores_square_root_many_states(fast):
    params = jax.ShapeDtypeStruct((50_000,), jnp.float32)

    def gradient(params, adjoint, optimizer):
        loss = mg.WeightedLoss(lambda p, b: jnp.stack([jnp.sum(jnp.sin(p)), jnp.sum(p**2)]))
        return mg.meta_gradient(
            loss, lambda p, b: jnp.sum(p**2), params, jnp.ones(2, jnp.float32), None, None,
            optimizer=optimizer, num_steps=100, adjoint=adjoint,
        ).meta  # fmt: skip

    momentum, adam = optax.sgd(0.1, momentum=0.9), optax.adam(0.1, eps_root=1e-8)

    def temp(adjoint, optimizer=momentum):
        lowered = fast(functools.partial(gradient, adjoint=adjoint, optimizer=optimizer)).lower(params)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    # Momentum is linear, so the sweep stores 100 parameters; "recursive" stores 11 states and 9 parameters.
    assert temp(mg.WeightedMixedMode("recursive")) < temp(mg.WeightedMixedMode("save_grads")) / 2.5
    assert temp(mg.ReverseUnroll("recursive")) < temp(mg.ReverseUnroll("none")) / 3
    # For Adam the sweep stores 100 gradients and 100 states of three times their size; "replay" stores 100, and holds
    # about 13 states at a time.
    assert temp(mg.WeightedMixedMode("replay"), adam) < temp(mg.WeightedMixedMode("save_grads"), adam) / 2.7
