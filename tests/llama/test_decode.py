"""Decoding with cached keys and values, compared with the full forward pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama import Llama, decode, lora
from mass_jax.llama.rope import Rope


@pytest.mark.parametrize("tied", [True, False])
def test_cached_logits_match_full_forward_pass(tied, config, make_params, make_adapter, tokens_BT, assert_close):
    """Ragged prompts, two continuations per prompt, one adapter per prompt, and positions that RoPE scaling affects."""
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 4}
    config = dataclasses.replace(config, rope=Rope("llama3", **scaling), tie_word_embeddings=tied)
    model, params = Llama(config), make_params(config)
    each = [make_adapter(config, targets=("q_proj", "v_proj"), seed=seed) for seed in range(3)]
    adapters = decode.unstack_adapter(lora.stack(each), 2)
    layers = decode.unstack(params)
    lengths_N, slots = np.array([5, 9, 2], np.int32), 4
    forced_NMS = np.random.default_rng(2).integers(0, config.vocab_size, (3, 2, slots)).astype(np.int32)

    @jax.jit
    def decoded():
        logits_NV, caches = decode.prefill(model, layers, adapters, tokens_BT[:, :9], lengths_N, 2, slots)
        found = [jnp.stack([logits_NV] * 2, axis=1)]
        for i in range(slots):
            tokens_NM, slot = forced_NMS[:, :, i], jnp.asarray(i)
            logits_NMV, caches = decode.step(model, layers, adapters, caches, tokens_NM, lengths_N, slot)
            found.append(logits_NMV)
        return jnp.stack(found, axis=2)

    @jax.jit
    def scanned():
        adapter = lora.stack(each)
        return decode.scanned_prefill(model, params, adapter, tokens_BT[:, :9], lengths_N, 2, slots)

    unrolled = jax.jit(lambda: decode.prefill(model, layers, adapters, tokens_BT[:, :9], lengths_N, 2, slots))()
    assert_close(scanned(), unrolled, 1e-5)
    found_NMSV, full = np.asarray(decoded()), jax.jit(model.apply)
    for n, m in np.ndindex(3, 2):
        length = lengths_N[n]
        text_T = np.zeros(9 + slots, np.int32)
        text_T[: length + slots] = np.concatenate([tokens_BT[n, :length], forced_NMS[n, m]])
        wanted_TV = full(lora.variables(params, each[n]), text_T[None])[0]
        np.testing.assert_allclose(found_NMSV[n, m], wanted_TV[length - 1 : length + slots], atol=1e-5, rtol=0)
