"""Suffix of a model: equal to the whole model with adapters in the last blocks, at a lower cost."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mass_jax.llama import Llama, lora, losses, suffix


def _both(config, params, tokens_BT, mask_BT=None):
    """Returns the loss of an adapter on the suffix and on the whole model, and both parts."""
    model = Llama(config)
    first, second = suffix.split(model, params, last=1)

    def of_suffix(adapter, prefix_BTD):
        variables = lora.variables(second.params, adapter)
        return jnp.mean(losses.token_nll(second.model, variables, tokens_BT, mask_BT, prefix_BTD) ** 2)

    def of_whole(adapter):
        variables = lora.variables(params, suffix.widen(adapter, config.num_hidden_layers))
        return jnp.mean(losses.token_nll(model, variables, tokens_BT, mask_BT) ** 2)

    return of_suffix, of_whole, first, second


def test_suffix_matches_whole_model(x64, config, make_params, make_adapter, tokens_BT, assert_close):
    config = dataclasses.replace(config, num_hidden_layers=3, tie_word_embeddings=True)
    mask_BT = jnp.arange(tokens_BT.shape[1]) < jnp.array([[13], [9], [11]])
    of_suffix, of_whole, first, second = _both(config, make_params(config), tokens_BT, mask_BT)
    adapter, direction = (make_adapter(second.model.config, targets=("v_proj",), seed=seed) for seed in (3, 8))
    prefix_BTD = jax.jit(lambda: suffix.prefix(first, tokens_BT, mask_BT))()

    def derivatives(f):  # value, gradient, and forward derivatives of both
        return jax.jit(lambda a, v: jax.jvp(jax.value_and_grad(f), (a,), (v,)))(adapter, direction)

    assert_close(derivatives(lambda a: of_suffix(a, prefix_BTD)), derivatives(of_whole), 1e-12)


def test_suffix_gradient_costs_fewer_operations(config, make_params, tokens_BT):
    layers = 3
    config = dataclasses.replace(config, num_hidden_layers=layers, unroll=layers)  # XLA counts the body of a loop once
    of_suffix, of_whole, first, second = _both(config, make_params(config), tokens_BT)
    adapter = jax.eval_shape(lambda: lora.init(jax.random.key(0), second.model.config, 2, ("q_proj", "up_proj")))
    prefix_BTD = jax.eval_shape(lambda: suffix.prefix(first, tokens_BT))

    def flops(f, *arguments):
        return jax.jit(jax.grad(f)).lower(adapter, *arguments).compile().cost_analysis()["flops"]

    assert flops(of_suffix, prefix_BTD) < 0.7 * flops(of_whole)


@pytest.mark.parametrize("last", [0, 2])
def test_split_refuses_empty_part(config, make_params, last):
    with pytest.raises(ValueError, match=f"suffix of {last} blocks"):
        suffix.split(Llama(config), make_params(config), last)
