"""Requests to a server, and the model's own log-probabilities of what it returns."""

import jax
import numpy as np

from mass_jax.llama import lora
from mass_jax.types import Adapter

PROMPTS = ([1, 20, 31, 42], [1, 50])
LENGTH = 64  # every text is padded to it, so that one program suffices


def draw(sampler, params, prompts=PROMPTS, keys=2, **options):
    """Draws two samples of five tokens for each prompt, with keys that do not depend on the number of prompts."""
    request = {"num_samples": 2, "max_new_tokens": 5, "stop_tokens": (2,), **options}
    return sampler(params, prompts, jax.random.split(jax.random.key(7), keys)[: len(prompts)], **request)


def random_adapters(config, count, rank, targets=lora.TARGETS, deviation=0.3):
    """Returns adapters of several prompts, with an effect."""
    leaves = lora.init(jax.random.key(1), config, rank, targets).leaves
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: deviation * rng.standard_normal((count, *leaf.shape), np.float32), leaves)
    return Adapter(drawn, 2.0, batched=True)


def logprobs(loaded, adapter, prompt, tokens_T, temperature):
    """Log-probabilities [T, V] of the next token before each token of a sample, under merged weights."""
    params = loaded.params if adapter is None else lora.merge(loaded.params, adapter)
    text = np.zeros((1, LENGTH), np.int32)
    text[0, : len(prompt) + len(tokens_T)] = [*prompt, *tokens_T]
    logits = np.asarray(_apply(loaded.model, params, text))[0, len(prompt) - 1 :][: len(tokens_T)] / temperature
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def scored(loaded, prompt, one, adapter, temperature):
    """Log-probabilities [T] of a sample under the model with merged weights."""
    rows = logprobs(loaded, adapter, prompt, one.tokens_T, temperature)
    return rows[np.arange(len(one.tokens_T)), one.tokens_T]


_apply = jax.jit(lambda model, params, tokens: model.apply({"params": params}, tokens), static_argnums=0)
