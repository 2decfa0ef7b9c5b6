"""The scorer s_eta(T, p_i, a_i): a small Llama trunk with a sigmoid head.

Shape suffixes: B rows, T tokens, D width.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from mass_jax.llama import Llama, LlamaConfig
from mass_jax.method.groups import over_tasks
from mass_jax.method.text import Text
from mass_jax.types import Params

HEAD_FEATURES = 16


def scorer_config(base: LlamaConfig, layers: int, width: int) -> LlamaConfig:
    """Returns the scorer's architecture: that of the base model at a smaller size.

    Heads have 16 features, and the MLP is 2.5 times as wide as the trunk.

    Args:
        base: configuration of the language model.
        layers: number of blocks of the trunk.
        width: hidden size of the trunk.

    Source: the paper, section 3.1 ("follows the base model's architecture but is lightweight").
    """
    heads = max(width // HEAD_FEATURES, 1)
    return dataclasses.replace(
        base,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=HEAD_FEATURES,
        intermediate_size=width * 5 // 2,
        tie_word_embeddings=True,  # the trunk feeds the score head, so an output matrix would be unused
    )


def init(key: jax.Array, trunk: Llama) -> Params:
    """Returns initial parameters: a random trunk and a zero head, so that every score starts at 1/2."""
    width = trunk.config.hidden_size
    return {"trunk": _init_trunk(trunk, key), "head": {"kernel": jnp.zeros(width), "bias": jnp.zeros(())}}


@functools.partial(jax.jit, static_argnums=0)  # `jax.jit(trunk.init)` would compile in every call
def _init_trunk(trunk: Llama, key: jax.Array) -> Params:
    """Returns random parameters of the trunk."""
    return trunk.init(key, jnp.zeros((1, 2), jnp.int32))["params"]


def scores(trunk: Llama, params: Params, text: Text, tasks_at_a_time: int = 0) -> jax.Array:
    r"""Score of each example for its target problem.

    .. math:: s_i = \sigma(w^\top h(T, p_i, a_i) + b) \in (0, 1)

    with h the hidden state of the trunk at the last real token.

    Args:
        trunk: the scorer's Llama.
        params: from `init`.
        text: target problem and example in scorer form, with any leading axes.
        tasks_at_a_time: largest number of entries of the first of several leading axes to score at a time, recomputed
            in the backward pass; 0 is all.

    Returns:
        Scores with the leading axes of `text`.

    Source: the paper, sections 2.1 and 3.1 ("sigmoid-constrained numerical scoring head").
    """
    if text.tokens_BT.ndim > 2:  # problems and rows stay separate axes, which the mesh shards separately
        return over_tasks(lambda one: scores(trunk, params, one), tasks_at_a_time, text, remat=True)
    tokens_BT, mask_BT = text.tokens_BT, text.mask_BT
    hidden_BTD: Any = trunk.apply({"params": params["trunk"]}, tokens_BT, mask_BT, method="hidden")
    last_B = jnp.maximum(mask_BT.sum(-1) - 1, 0)
    state_BD = jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)[:, 0]
    logits_B = state_BD @ params["head"]["kernel"] + params["head"]["bias"]
    return jax.nn.sigmoid(logits_B)


def centered(gradient_NM: jax.Array, parsed_NM: jax.Array) -> jax.Array:
    r"""Meta-gradient of the scores without the part that a problem's parsed examples have in common.

    .. math:: g_i - \frac{1}{|P|} \sum_{j \in P} g_j

    The common part says whether the problem wants more or less weight on all of its examples, so the score of every
    example follows it, whichever is the better one.

    Args:
        gradient_NM: derivatives of the outer loss with respect to the scores.
        parsed_NM: True for the examples P that parsed; the result is 0 for the others.

    >>> centered(jnp.array([[1.0, 3.0, 0.0]]), jnp.array([[True, True, False]]))
    Array([[-1.,  1.,  0.]], dtype=float32)
    """
    kept_NM = parsed_NM.astype(gradient_NM.dtype)
    mean_N1 = (kept_NM * gradient_NM).sum(-1, keepdims=True) / jnp.maximum(kept_NM.sum(-1, keepdims=True), 1)
    return jnp.where(parsed_NM, gradient_NM - mean_N1, 0)
