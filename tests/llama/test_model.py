"""Llama module: causality, padding, execution settings and dtypes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.llama import Llama, lora, losses


def test_logits_are_causal(config, make_params):
    model, params = Llama(config), make_params(config)
    tokens_BT = jnp.arange(13)[None]  # distinct, so that each embedding row belongs to one position

    def at_5(embedding_VD):
        logits_BTV = model.apply({"params": {**params, "embed_tokens": {"embedding": embedding_VD}}}, tokens_BT)
        return jnp.sum(logits_BTV[0, 5] ** 2)

    gradient_VD = jax.jit(jax.grad(at_5))(params["embed_tokens"]["embedding"])
    size_T = np.asarray(jnp.max(jnp.abs(gradient_VD), axis=1))
    assert (size_T[:6] > 0).all()
    assert (size_T[6:] == 0).all()


def test_padding_does_not_affect_real_tokens(config, make_params, tokens_BT):
    model, params = Llama(config), make_params(config)
    length = 8
    apply = jax.jit(model.apply)
    alone = apply({"params": params}, tokens_BT[:, :length])
    mask_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]) < length, tokens_BT.shape)
    padded = apply({"params": params}, tokens_BT, mask_BT)[:, :length]
    np.testing.assert_allclose(padded, alone, atol=1e-5)


def test_padding_row_has_finite_derivatives(config, make_params, make_adapter, tokens_BT):
    model, params, adapter = Llama(config), make_params(config), make_adapter(config)
    mask_BT = jnp.ones(tokens_BT.shape, bool).at[1].set(False)

    def loss(adapter):
        return jnp.sum(losses.token_nll(model, lora.variables(params, adapter), tokens_BT, mask_BT))

    _, tangent = jax.jit(lambda a: jax.jvp(jax.grad(loss), (a,), (a,)))(adapter)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tangent))


def test_execution_settings_preserve_derivatives(x64, config, make_params, make_adapter, tokens_BT, assert_close):
    params, adapter = make_params(config), make_adapter(config, targets=("v_proj", "up_proj"))

    def derivatives(**changes):
        model = Llama(dataclasses.replace(config, **changes))

        def loss(adapter):
            return jnp.mean(losses.token_nll(model, lora.variables(params, adapter), tokens_BT))

        return jax.jit(lambda a: jax.jvp(jax.grad(loss), (a,), (a,)))(adapter)

    plain = derivatives(remat="none")
    assert_close(derivatives(remat="dots"), plain, 1e-12)
    assert_close(derivatives(remat="block", unroll=2), plain, 1e-12)


def test_bfloat16_activations_keep_float32_adapter(config, make_params, make_adapter, tokens_BT):
    adapter = make_adapter(config, targets=("v_proj", "up_proj"))
    narrow = jax.tree.map(lambda x: np.asarray(x).astype(jnp.bfloat16), make_params(config))

    def loss(adapter, params, config):
        return jnp.mean(losses.token_nll(Llama(config), lora.variables(params, adapter), tokens_BT))

    value, gradient = jax.jit(jax.value_and_grad(loss), static_argnums=2)(
        adapter, narrow, dataclasses.replace(config, dtype="bfloat16")
    )
    assert value.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.float32)}
    exact = jax.tree.map(lambda x: x.astype(np.float32), narrow)
    np.testing.assert_allclose(value, jax.jit(loss, static_argnums=2)(adapter, exact, config), rtol=2e-2)
