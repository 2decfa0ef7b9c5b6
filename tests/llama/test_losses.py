"""Chunked cross-entropy is cross-entropy, in every derivative, in little memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama import Llama, LlamaConfig, lora, losses


@pytest.mark.parametrize(("chunk", "tied"), [(1, True), (5, False), (12, True), (100, False)])
def test_chunked_equals_naive_in_every_derivative(
    x64, config, make_params, make_adapter, tokens_BT, assert_close, chunk, tied
):
    config = dataclasses.replace(config, tie_word_embeddings=tied)
    params, adapter = make_params(config), make_adapter(config)

    def loss(config):
        def of(params, adapter):
            nll_BT = losses.token_nll(Llama(config), lora.variables(params, adapter), tokens_BT)
            return jnp.sum(jnp.sin(nll_BT))

        return of

    point = (params, adapter)
    for transform in (
        lambda f: jax.jit(lambda *p: jax.jvp(f, p, p))(*point),  # value and forward derivative
        lambda f: jax.jit(lambda *p: jax.jvp(jax.grad(f, (0, 1)), p, p))(*point),  # gradient and its derivative
    ):
        assert_close(transform(loss(dataclasses.replace(config, loss_chunk=chunk))), transform(loss(config)), 1e-11)


def test_it_is_the_log_softmax_of_the_logits(x64, config, make_params, tokens_BT):
    model, params = Llama(config), make_params(config)
    logp_BTV = jax.nn.log_softmax(model.apply({"params": params}, tokens_BT))
    wanted = -jnp.take_along_axis(logp_BTV[:, :-1], tokens_BT[:, 1:, None], axis=-1)[..., 0]
    np.testing.assert_allclose(losses.token_nll(model, {"params": params}, tokens_BT), wanted, rtol=1e-12)


def _mixed_step_temporaries(chunk: int) -> int:
    """Of jvp(grad) in the hidden states at the head of Llama 3: 128,256 words, 512 tokens."""
    config = LlamaConfig(
        vocab_size=128256, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = Llama(dataclasses.replace(config, loss_chunk=chunk))
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]

    def step(params, hidden_BTD, labels_BT):
        def loss(hidden_BTD):
            return jnp.mean(losses.head_nll(model, {"params": params}, hidden_BTD, labels_BT))

        return jax.jvp(jax.grad(loss), (hidden_BTD,), (hidden_BTD,))

    hidden = jax.ShapeDtypeStruct((1, 512, 64), jnp.float32)
    labels = jax.ShapeDtypeStruct((1, 512), jnp.int32)
    return jax.jit(step).lower(params, hidden, labels).compile().memory_analysis().temp_size_in_bytes


def test_chunks_take_a_tenth_of_the_memory_at_most():
    assert _mixed_step_temporaries(chunk=16) <= _mixed_step_temporaries(chunk=0) / 10
