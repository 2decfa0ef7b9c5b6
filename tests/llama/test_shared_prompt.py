"""Continuations of a shared prompt: equal to separate rows in every derivative, at a lower cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama import Llama, lora, losses, shared_prompt, suffix
from mass_jax.llama.rope import Rope

SLOTS, LENGTH, NEW = 7, 5, 4  # P, real tokens of the prompt, S
COUNTS_M = np.array([4, 2, 1])


@pytest.fixture
def rows(config):
    draw = np.random.default_rng(0)
    prompt_P, tokens_MS = (draw.integers(1, config.vocab_size, shape) for shape in (SLOTS, (len(COUNTS_M), NEW)))
    mask_MS = np.arange(NEW) < COUNTS_M[:, None]
    return shared_prompt.Continued(*map(jnp.asarray, (prompt_P, LENGTH, tokens_MS, mask_MS)))


def separate(rows):
    """Returns the tokens and the mask of one row for each continuation."""
    tokens_MT = np.zeros((len(COUNTS_M), SLOTS + NEW), np.int32)
    tokens_MT[:, :LENGTH], tokens_MT[:, LENGTH : LENGTH + NEW] = rows.prompt_P[:LENGTH], rows.tokens_MS
    return jnp.asarray(tokens_MT), jnp.arange(SLOTS + NEW) < LENGTH + COUNTS_M[:, None]


@pytest.fixture
def adapters(config, make_adapter):
    """An adapter and a direction in which to differentiate."""
    return [make_adapter(config, targets=("k_proj", "up_proj"), seed=seed) for seed in (3, 8)]


def derivatives(nll, rows, adapters):
    """Returns a loss and its gradient, with the forward derivatives of both."""

    def loss(adapter):
        return jnp.sum(jnp.where(rows.mask_MS, nll(adapter), 0) ** 2)

    return jax.jit(lambda a, v: jax.jvp(jax.value_and_grad(loss), (a,), (v,)))(*adapters)


def test_continuation_nll_matches_separate_rows(x64, config, make_params, adapters, assert_close, rows):
    params, (tokens_MT, mask_MT) = make_params(config), separate(rows)

    def apart(adapter):
        nll_MT = losses.token_nll(Llama(config), lora.variables(params, adapter), tokens_MT, mask_MT)
        return nll_MT[:, LENGTH - 1 : LENGTH - 1 + NEW]

    expected = derivatives(apart, rows, adapters)
    for changes in ({}, {"attention": "blockwise", "attention_block": 2}, {"remat": "block", "loss_chunk": 3}):
        model = Llama(dataclasses.replace(config, **changes))

        def shared(adapter, model=model):
            return shared_prompt.continuation_nll(model, lora.variables(params, adapter), rows)

        assert_close(derivatives(shared, rows, adapters), expected, 1e-11)


def test_continuation_nll_matches_separate_rows_with_dynamic_rope(x64, config, make_params, assert_close, rows):
    rope = Rope(rope_type="dynamic", factor=2.0)
    config = dataclasses.replace(config, rope=rope, max_position_embeddings=NEW)  # shorter than the prompt
    variables, (tokens_MT, mask_MT) = {"params": make_params(config)}, separate(rows)

    @jax.jit
    def both():
        apart_MT = losses.token_nll(Llama(config), variables, tokens_MT, mask_MT)[:, LENGTH - 1 : LENGTH - 1 + NEW]
        shared_MS = shared_prompt.continuation_nll(Llama(config), variables, rows)
        return tuple(jnp.where(rows.mask_MS, nll, 0) for nll in (shared_MS, apart_MT))

    assert_close(*both(), 1e-12)


def test_continuation_nll_starts_after_prefix(x64, config, make_params, assert_close, rows):
    config = dataclasses.replace(config, num_hidden_layers=3)
    model, params = Llama(config), make_params(config)
    first, second = suffix.split(model, params, last=1)

    @jax.jit
    def both():
        from_prefix = shared_prompt.continuation_nll(
            second.model, {"params": second.params}, rows, shared_prompt.prefix(first, rows)
        )
        return from_prefix, shared_prompt.continuation_nll(model, {"params": params}, rows)

    assert_close(*both(), 1e-12)


def test_continuation_nll_ignores_padding_of_prompt(x64, config, make_params, assert_close, rows):
    variables = {"params": make_params(config)}
    other = rows._replace(prompt_P=rows.prompt_P.at[LENGTH:].set(0))
    nll = jax.jit(lambda rows: shared_prompt.continuation_nll(Llama(config), variables, rows))
    assert_close(nll(other), nll(rows), 1e-15)


def test_continuation_gradient_costs_fewer_operations(config, make_params, rows):
    config = dataclasses.replace(config, unroll=config.num_hidden_layers)  # XLA counts the body of a loop once
    model, params, (tokens_MT, mask_MT) = Llama(config), make_params(config), separate(rows)

    def flops(loss):
        return jax.jit(jax.grad(loss)).lower(params).compile().cost_analysis()["flops"]

    shared = flops(lambda p: shared_prompt.continuation_nll(model, {"params": p}, rows).sum())
    assert shared < 0.7 * flops(lambda p: losses.token_nll(model, {"params": p}, tokens_MT, mask_MT).sum())
