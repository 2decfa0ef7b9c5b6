"""Continuations of one prompt, which is computed once for all of them.

Shape suffixes: M continuations, P prompt slots, S tokens per continuation, D hidden size.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.llama import lora
from mass_jax.llama.losses import head_nll
from mass_jax.llama.model import Llama
from mass_jax.llama.suffix import Part


class Continued(NamedTuple):
    """A prompt with its continuations.

    Attributes:
        prompt_P: token ids of the prompt, right-padded.
        length: number of tokens of the prompt, at least 1.
        tokens_MS: token ids of the continuations, right-padded; each starts at position `length`.
        mask_MS: true at real tokens of the continuations.
    """

    prompt_P: jax.Array
    length: jax.Array
    tokens_MS: jax.Array
    mask_MS: jax.Array


def embed(model: Llama, variables: Mapping[str, Any], rows: Continued) -> tuple[jax.Array, jax.Array]:
    """Returns the embeddings of the prompt [1, P, D] and of the continuations [M, S, D]."""
    prompt_1PD: Any = model.apply(variables, rows.prompt_P[None], method="embed")
    tokens_MSD: Any = model.apply(variables, rows.tokens_MS, method="embed")
    return prompt_1PD, tokens_MSD


def prefix(first: Part, rows: Continued) -> tuple[jax.Array, jax.Array]:
    """Returns the output of a model's first blocks, with gradients stopped; see `suffix.prefix`."""
    variables = lora.variables(first.params, first.adapter)
    hidden: Any = first.model.apply(
        variables, embed(first.model, variables, rows), rows.length, rows.mask_MS, method="continued_blocks"
    )
    return jax.lax.stop_gradient(hidden)


def continuation_nll(
    model: Llama,
    variables: Mapping[str, Any],
    rows: Continued,
    hidden: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    r"""Computes the negative log-likelihood of each token of the continuations.

    .. math:: \ell_{m,s} = -\log p(y_{m,s} \mid x, y_{m,<s})

    Equal to `losses.token_nll` on rows of prompt and continuation, up to rounding. The prompt runs through the model
    once rather than M times, and logits are computed for continuations only.

    Args:
        model: the model. RoPE of type "dynamic" depends on the padded length, which is P + S as in separate rows.
        variables: {"params": params} and optionally {"lora": adapter}.
        rows: the prompt and its continuations.
        hidden: input of the model's blocks in place of the embeddings; see `prefix`.

    Returns:
        nll_MS in nats, at least float32. Entries at padding are meaningless; callers must mask them.

    >>> from mass_jax.llama import LlamaConfig
    >>> model = Llama(LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
    ...                           intermediate_size=4, initializer_range=0.0))
    >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.array([[1]]))
    >>> rows = Continued(jnp.array([1, 2, 0]), 2, jnp.array([[3, 4], [5, 0]]), jnp.array([[True, True], [True, False]]))
    >>> nll_MS = jax.jit(continuation_nll, static_argnums=0)(model, variables, rows)
    >>> [[f"{nll:.3f}" for nll in row] for row in nll_MS]  # no weight, so uniform: log 7
    [['1.946', '1.946'], ['1.946', '1.946']]
    """
    x = embed(model, variables, rows) if hidden is None else hidden
    read: Any = model.apply(variables, x, rows.length, rows.mask_MS, method="continued_blocks")
    prompt_1PD, hidden_MSD = read
    last_1D = jax.lax.dynamic_slice_in_dim(prompt_1PD, rows.length - 1, 1, axis=1)[0]
    first_M1D = jnp.broadcast_to(last_1D, (len(hidden_MSD), 1, last_1D.shape[-1]))
    before_MSD = jnp.concatenate([first_M1D, hidden_MSD[:, :-1]], axis=1)  # the position before each token
    normed_MSD: Any = model.apply(variables, before_MSD, method="final_norm")
    return head_nll(model, variables, normed_MSD, rows.tokens_MS)
