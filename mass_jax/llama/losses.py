"""Token losses that need not hold the logits of a whole batch, in plain JAX: jvp, grad and jvp of grad all work.

Shape suffixes: B rows, T tokens, J chunks of C positions each, D hidden size, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mass_jax.llama.dense import LORA
from mass_jax.llama.model import Llama
from mass_jax.llama.precision import wide


def token_nll(
    model: Llama,
    variables: Mapping[str, Any],
    tokens_BT: jax.Array,
    mask_BT: jax.Array | None = None,
    prefix_BTD: jax.Array | None = None,
) -> jax.Array:
    r"""Computes the negative log-likelihood of each token after the first, given the tokens before it.

    .. math:: \ell_{b,t} = -\log p(x_{b,t+1} \mid x_{b,0}, \dots, x_{b,t})

    Args:
        model: the model. Logits are computed for `config.loss_chunk` positions of each row at a time (0: all).
        variables: {"params": params} and optionally {"lora": adapter}.
        tokens_BT: right-padded texts.
        mask_BT: true at real tokens. Entries that predict padding are meaningless; callers must mask them.
        prefix_BTD: input of the model's blocks in place of the embeddings; see `suffix.split`.

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


def last_tokens_nll(
    model: Llama,
    variables: Mapping[str, Any],
    tokens_BT: jax.Array,
    mask_BT: jax.Array,
    target_BT: jax.Array,
    *,
    count: int,
    prefix_BTD: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Computes the negative log-likelihood of target tokens only, which saves the other logits.

    Args:
        model: the model.
        variables: {"params": params} and optionally {"lora": adapter}.
        tokens_BT: right-padded texts.
        mask_BT: true at real tokens.
        target_BT: 1 at tokens to count: consecutive ones, at most `count` in each row, and not the first token.
        count: C.
        prefix_BTD: input of the model's blocks in place of the embeddings; see `suffix.split`.

    Returns:
        nll_BC in nats, at least float32, and target_BC, whose entries are 0 where a row has fewer than C targets.

    >>> from mass_jax.llama import LlamaConfig
    >>> model = Llama(LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
    ...                           intermediate_size=4, initializer_range=0.0))
    >>> tokens_BT, mask_BT = jnp.array([[1, 2, 3, 4]]), jnp.array([[True] * 4])
    >>> variables = jax.jit(model.init)(jax.random.key(0), tokens_BT)
    >>> nll_BC, target_BC = jax.jit(last_tokens_nll, static_argnums=0, static_argnames="count")(
    ...     model, variables, tokens_BT, mask_BT, jnp.array([[0.0, 0.0, 1.0, 1.0]]), count=2)
    >>> [f"{nll:.3f}" for nll in nll_BC[0]], target_BC.tolist()
    (['1.946', '1.946'], [[1.0, 1.0]])
    """
    starts_B1 = jnp.argmax(target_BT > 0, axis=-1, keepdims=True)
    slots_BC = starts_B1 + jnp.arange(count)
    inside_BC = slots_BC < tokens_BT.shape[1]
    slots_BC = jnp.clip(slots_BC, 1, tokens_BT.shape[1] - 1)
    x_BTD: Any = model.apply(variables, tokens_BT, method="embed") if prefix_BTD is None else prefix_BTD
    hidden_BTD: Any = model.apply(variables, x_BTD, mask_BT, method="read")
    hidden_BCD = jnp.take_along_axis(hidden_BTD, slots_BC[..., None] - 1, axis=1)
    labels_BC, target_BC = (jnp.take_along_axis(rows_BT, slots_BC, axis=1) for rows_BT in (tokens_BT, target_BT))
    return head_nll(model, variables, hidden_BCD, labels_BC), jnp.where(inside_BC, target_BC, 0)


def head_nll(model: Llama, variables: Mapping[str, Any], hidden_BTD: jax.Array, labels_BT: jax.Array) -> jax.Array:
    """Computes the negative log-likelihood [B, T] of labels, given hidden states after the last norm.

    Args:
        model: the model; only its head is applied.
        variables: {"params": params}; a "lora" collection is ignored, since the head has no adapter.
        hidden_BTD: hidden states, from `Llama.hidden`.
        labels_BT: token ids.
    """
    head = {key: value for key, value in variables.items() if key != LORA}

    def nll(hidden: jax.Array, labels: jax.Array) -> jax.Array:
        logits: Any = model.apply(head, hidden, method="head")
        logits = logits.astype(wide(logits.dtype))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    chunk, length = model.config.loss_chunk, hidden_BTD.shape[1]
    if not 0 < chunk < length:
        return nll(hidden_BTD, labels_BT)
    hidden_JBCD, labels_JBC = _chunks(hidden_BTD, chunk), _chunks(labels_BT, chunk)
    # Recomputed in the backward pass: saving the logits of each chunk would save them all.
    nll_JBC = jax.lax.map(lambda pair: jax.checkpoint(nll)(*pair), (hidden_JBCD, labels_JBC))
    return jnp.moveaxis(nll_JBC, 0, 1).reshape(labels_BT.shape[0], -1)[:, :length]


def _chunks(x: jax.Array, size: int) -> jax.Array:
    """Reshapes [B, T, ...] to [J, B, C, ...], along positions so that a sharded batch axis is not moved."""
    count = -(-x.shape[1] // size)
    padded = jnp.pad(x, [(0, 0), (0, count * size - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])
    return jnp.moveaxis(padded.reshape(x.shape[0], count, size, *x.shape[2:]), 1, 0)
