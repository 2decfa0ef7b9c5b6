"""Chunked cross-entropy: equal to plain cross-entropy in every derivative, with less memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama import Llama, LlamaConfig, lora, losses


@pytest.mark.parametrize(("chunk", "tied"), [(1, True), (5, False), (100, False)])
def test_chunked_loss_matches_naive_derivatives(x64, config, make_params, tokens_BT, assert_close, chunk, tied):
    config = dataclasses.replace(config, tie_word_embeddings=tied)
    params = {name: leaf for name, leaf in make_params(config).items() if name != "layers"}
    hidden_BTD = jnp.asarray(np.random.default_rng(0).standard_normal((*tokens_BT.shape, config.hidden_size)))

    def derivatives(config):  # value, gradient, and forward derivatives of both
        def loss(params, hidden_BTD):
            nll_BT = losses.head_nll(Llama(config), {"params": params}, hidden_BTD, tokens_BT)
            return jnp.sum(jnp.sin(nll_BT))

        point = (params, hidden_BTD)
        return jax.jit(lambda *p: jax.jvp(jax.value_and_grad(loss, (0, 1)), p, p))(*point)

    assert_close(derivatives(dataclasses.replace(config, loss_chunk=chunk)), derivatives(config), 1e-11)


def test_token_nll_matches_log_softmax(x64, config, make_params, tokens_BT):
    variables = {"params": make_params(config)}
    found, logits_BTV = jax.jit(
        lambda v: (losses.token_nll(Llama(config), v, tokens_BT), Llama(config).apply(v, tokens_BT))
    )(variables)
    logp_BTV = np.asarray(logits_BTV) - np.log(np.sum(np.exp(logits_BTV), axis=-1, keepdims=True))
    wanted = -np.take_along_axis(logp_BTV[:, :-1], np.asarray(tokens_BT)[:, 1:, None], axis=-1)[..., 0]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def _inner_step_temporaries(chunk: int) -> int:
    """Returns the temporary memory of jvp(grad) of an adapter's loss, with the vocabulary of Llama 3 and 512 tokens."""
    config = LlamaConfig(
        vocab_size=128256, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = Llama(dataclasses.replace(config, loss_chunk=chunk))
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    adapter = jax.eval_shape(lambda: lora.init(jax.random.key(0), config, 2, ("q_proj",)))

    def step(params, adapter, direction, tokens_BT):
        def loss(adapter):
            return jnp.mean(losses.token_nll(model, lora.variables(params, adapter), tokens_BT))

        return jax.jvp(jax.grad(loss), (adapter,), (direction,))

    tokens = jax.ShapeDtypeStruct((1, 513), jnp.int32)
    return jax.jit(step).lower(params, adapter, adapter, tokens).compile().memory_analysis().temp_size_in_bytes


def test_chunked_loss_takes_tenth_of_memory():
    assert _inner_step_temporaries(chunk=16) <= _inner_step_temporaries(chunk=0) / 10


def test_last_tokens_nll_matches_token_nll(x64, config, make_params, tokens_BT, assert_close):
    variables = {"params": make_params(config)}
    starts_B1, counts_B1 = np.array([[3], [1], [tokens_BT.shape[1] - 1]]), np.array([[2], [4], [1]])
    slots_T = np.arange(tokens_BT.shape[1])
    target_BT = jnp.asarray((slots_T >= starts_B1) & (slots_T < starts_B1 + counts_B1), jnp.float64)
    mask_BT = jnp.asarray(slots_T < starts_B1 + counts_B1)

    def all_tokens(variables):
        nll_BT = losses.token_nll(Llama(config), variables, tokens_BT, mask_BT)
        return (nll_BT * target_BT[:, 1:]).sum(-1)

    def targets(variables):
        nll_BC, target_BC = losses.last_tokens_nll(
            Llama(config), variables, tokens_BT, mask_BT, target_BT, count=int(counts_B1.max())
        )
        return (nll_BC * target_BC).sum(-1)

    def value_and_gradient(of_rows):
        return jax.jit(jax.value_and_grad(lambda v: (of_rows(v) ** 2).sum()))(variables)

    assert_close(value_and_gradient(targets), value_and_gradient(all_tokens), 1e-11)


def test_last_tokens_nll_of_row_without_targets_is_finite(config, make_params, tokens_BT):
    nothing_BT = jnp.zeros(tokens_BT.shape)
    nll_BC, target_BC = jax.jit(
        lambda v: losses.last_tokens_nll(Llama(config), v, tokens_BT, nothing_BT > 0, nothing_BT, count=2)
    )({"params": make_params(config)})
    assert jnp.isfinite(nll_BC).all()
    assert not target_BC.any()
