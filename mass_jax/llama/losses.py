"""Token losses that never hold the logits of a whole batch, in plain JAX: jvp, grad and jvp of grad all pass.

Shapes: B rows, T tokens, J chunks of C positions each, D hidden size, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mass_jax.llama.model import LORA, Llama
from mass_jax.llama.precision import wide


def token_nll(
    model: Llama,
    variables: Mapping[str, Any],
    tokens_BT: jax.Array,
    mask_BT: jax.Array | None = None,
    prefix_BTD: jax.Array | None = None,
) -> jax.Array:
    """Negative log-likelihood of each token but the first, given those before it.

        nll[b, t] = -log p(tokens[b, t + 1] | tokens[b, : t + 1])

    Args:
      model: the model; `config.loss_chunk` positions of each row have logits at a time (0: all of them).
      variables: {"params": params} and optionally {"lora": adapter}.
      tokens_BT: right-padded texts.
      mask_BT: true at real tokens; entries that predict padding are meaningless and for the caller to mask.
      prefix_BTD: what the model's blocks read in place of the embeddings, see `suffix.split`.

    Returns:
      [B, T - 1] in nats, at least float32.

    >>> from mass_jax.llama import LlamaConfig
    >>> model = Llama(LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
    ...                           intermediate_size=4, initializer_range=0.0))
    >>> tokens_BT = jnp.array([[1, 2, 3]])
    >>> variables = jax.jit(model.init)(jax.random.key(0), tokens_BT)
    >>> nll_BT = jax.jit(token_nll, static_argnums=0)(model, variables, tokens_BT)
    >>> [f"{nll:.3f}" for nll in nll_BT[0]]  # no weight, so uniform: log 7
    ['1.946', '1.946']
    """
    x_BTD: Any = model.apply(variables, tokens_BT, method="embed") if prefix_BTD is None else prefix_BTD
    hidden_BTD: Any = model.apply(variables, x_BTD, mask_BT, method="read")
    return head_nll(model, variables, hidden_BTD[:, :-1], tokens_BT[:, 1:])


def head_nll(model: Llama, variables: Mapping[str, Any], hidden_BTD: jax.Array, labels_BT: jax.Array) -> jax.Array:
    """Negative log-likelihood [B, T] of labels under the head's reading of hidden states."""
    head = {key: value for key, value in variables.items() if key != LORA}

    def nll(hidden: jax.Array, labels: jax.Array) -> jax.Array:
        logits: Any = model.apply(head, hidden, method="head")
        logits = logits.astype(wide(logits.dtype))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    chunk, length = model.config.loss_chunk, hidden_BTD.shape[1]
    if not 0 < chunk < length:
        return nll(hidden_BTD, labels_BT)
    hidden_JBCD, labels_JBC = _chunks(hidden_BTD, chunk), _chunks(labels_BT, chunk)
    # Recomputed in the backward pass: saving each chunk's logits would be saving them all.
    nll_JBC = jax.lax.map(lambda pair: jax.checkpoint(nll)(*pair), (hidden_JBCD, labels_JBC))
    return jnp.moveaxis(nll_JBC, 0, 1).reshape(labels_BT.shape[0], -1)[:, :length]


def _chunks(x: jax.Array, size: int) -> jax.Array:
    """[B, T, ...] to [J, B, C, ...]: along positions, so that a batch sharded over devices stays where it is."""
    count = -(-x.shape[1] // size)
    padded = jnp.pad(x, [(0, 0), (0, count * size - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])
    return jnp.moveaxis(padded.reshape(x.shape[0], count, size, *x.shape[2:]), 1, 0)
