"""Causal grouped-query attention in plain JAX, which supports nested forward- and reverse-mode differentiation.

`jax.nn.dot_product_attention` is not used because it rounds its softmax to float32 even for float64 inputs, and finite
differences of a meta-gradient would then measure that rounding.

Shape suffixes: B rows, T queries, S keys, J blocks of queries, K key-value heads, G queries per key-value head, H
features per head, Q = G T.
"""

import itertools

import jax
import jax.numpy as jnp

from mass_jax.llama import kernel_attention
from mass_jax.llama.config import LlamaConfig
from mass_jax.llama.precision import wide

SPANS = 4  # of blockwise attention; each is compiled separately
LONG = 1024  # queries from which blockwise attention takes less time than holding all scores, measured on a CPU
_LEAST = 128  # queries of the smallest block that blockwise attention chooses by itself


def attend(query_BTKGH: jax.Array, key_BSKH: jax.Array, value_BSKH: jax.Array, visible_BTS: jax.Array) -> jax.Array:
    r"""Computes softmax attention over the visible keys, holding the scores of all pairs.

    .. math:: o_t = \sum_s \mathrm{softmax}_s(q_t \cdot k_s / \sqrt{H}) \, v_s, \quad s \text{ visible from } t

    Scores and softmax are at least float32. The output of a query that sees no key is the mean of all values, which is
    finite; such queries are padding, and their outputs are unused. Values are summed before the softmax is normalized,
    so that the division is over [T, H] rather than [T, S] and no derivative stores normalized weights.

    Args:
        query_BTKGH: queries.
        key_BSKH: keys.
        value_BSKH: values.
        visible_BTS: booleans; B and T may be 1 to broadcast.

    Returns:
        [B, T, K, G, H] in the queries' dtype.
    """
    dtype = wide(query_BTKGH.dtype)
    rows, length, heads, group, features = query_BTKGH.shape
    # Operands are transposed once, into the order of a batched matrix product; einsum would transpose them again in
    # each of the products that differentiation derives from these two.
    query = jnp.transpose(query_BTKGH * features**-0.5, (0, 2, 3, 1, 4)).reshape(rows, heads, group * length, features)
    key, value = (jnp.swapaxes(x, 1, 2) for x in (key_BSKH, value_BSKH))
    scores = jnp.einsum("BKQH,BKSH->BKQS", query, key, preferred_element_type=dtype)
    scores = scores.reshape(rows, heads, group, length, -1)
    scores += jnp.where(visible_BTS[:, None, None], 0, hidden_score(dtype)).astype(dtype)
    powers = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    weights = powers.reshape(rows, heads, group * length, -1).astype(value.dtype)
    mixed = jnp.einsum("BKQS,BKSH->BKQH", weights, value, preferred_element_type=dtype)
    mixed = mixed.reshape(rows, heads, group, length, -1) / powers.sum(axis=-1, keepdims=True)
    return jnp.transpose(mixed, (0, 3, 1, 2, 4)).astype(query_BTKGH.dtype)


def hidden_score(dtype: jax.typing.DTypeLike) -> float:
    """Returns the score of a hidden key: finite, so that a row without visible keys stays finite under jvp."""
    return 0.5 * float(jnp.finfo(dtype).min)


def causal(queries_T: jax.Array, keys_S: jax.Array, mask_BS: jax.Array | None = None) -> jax.Array:
    """Returns the causal mask: each query sees the real tokens at its own and earlier positions.

    Args:
        queries_T: positions of the queries.
        keys_S: positions of the keys.
        mask_BS: true at real tokens; None if all are real.

    Returns:
        Booleans [B, T, S], or [1, T, S] without a mask.

    >>> causal(jnp.arange(1, 3), jnp.arange(3))[0].astype(int).tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    visible = (keys_S[None, :] <= queries_T[:, None])[None]
    return visible if mask_BS is None else visible & mask_BS.astype(bool)[:, None, :]


def self_attend(
    config: LlamaConfig,
    query_BTKGH: jax.Array,
    key_BSKH: jax.Array,
    value_BSKH: jax.Array,
    mask_BS: jax.Array | None,
) -> jax.Array:
    """Computes causal attention of the last T positions to all S, implemented as `config.attention` says.

    "blockwise" applies to more than `config.attention_block` queries, and "auto" chooses it for more than `LONG` ones.
    "kernel" is `kernel_attention.attend`.

    Args:
        config: its `attention` and `attention_block` are used.
        query_BTKGH: queries of the last T positions.
        key_BSKH: keys.
        value_BSKH: values.
        mask_BS: true at real tokens; None if all are real.

    Returns:
        [B, T, K, G, H] in the queries' dtype.
    """
    if config.attention == "kernel":
        return kernel_attention.attend(query_BTKGH, key_BSKH, value_BSKH, mask_BS)
    least = max(LONG if config.attention == "auto" else 0, config.attention_block)
    if config.attention != "xla" and query_BTKGH.shape[1] > least:
        return blockwise(query_BTKGH, key_BSKH, value_BSKH, mask_BS, block=config.attention_block)
    keys_S = jnp.arange(key_BSKH.shape[1])
    return attend(query_BTKGH, key_BSKH, value_BSKH, causal(keys_S[-query_BTKGH.shape[1] :], keys_S, mask_BS))


def blockwise(
    query_BTKGH: jax.Array, key_BSKH: jax.Array, value_BSKH: jax.Array, mask_BS: jax.Array | None, *, block: int
) -> jax.Array:
    """Computes `self_attend` one block of queries at a time, recomputed in the backward pass.

    The scores of a block are [B, K, G, block, S], so memory is linear in T in every mode of differentiation. The blocks
    are split into at most `SPANS` consecutive spans. A span reads the keys up to its own end, which with 4 spans takes
    5/8 of the operations that all pairs of queries and keys take. Causality requires half, but each further span has
    to be compiled. A span loops over several blocks, for which blocks may be smaller than `block`: XLA inlines a loop
    over one block, and then the scores of several spans are in memory at a time.

    Args:
        query_BTKGH: queries of the last T positions.
        key_BSKH: keys.
        value_BSKH: values.
        mask_BS: true at real tokens; None if all are real.
        block: largest number of queries per block.

    Returns:
        [B, T, K, G, H] in the queries' dtype.
    """
    rows, length = query_BTKGH.shape[:2]
    block = min(block, max(-(-length // (8 * SPANS)), _LEAST))
    blocks = -(-length // block)
    padding = [(0, 0), (0, blocks * block - length), *[(0, 0)] * 3]
    query_JBTKGH = jnp.moveaxis(
        jnp.pad(query_BTKGH, padding).reshape(rows, blocks, block, *query_BTKGH.shape[2:]), 1, 0
    )
    keys_S = jnp.arange(key_BSKH.shape[1])
    first = key_BSKH.shape[1] - length

    def span(start: int, stop: int) -> jax.Array:
        """Attends from the blocks start, ..., stop - 1 to the keys up to the end of the last one."""
        end = first + stop * block
        key, value, keys = key_BSKH[:, :end], value_BSKH[:, :end], keys_S[:end]
        mask = None if mask_BS is None else mask_BS[:, :end]

        @jax.checkpoint
        def one(j_and_query: tuple[jax.Array, jax.Array]) -> jax.Array:
            j, query = j_and_query
            return attend(query, key, value, causal(first + j * block + jnp.arange(block), keys, mask))

        return jax.lax.map(one, (jnp.arange(start, stop), query_JBTKGH[start:stop]))

    spans = min(SPANS, max(blocks // 2, 1))
    bounds = [blocks * n // spans for n in range(spans + 1)]
    mixed_JBTKGH = jnp.concatenate([span(*pair) for pair in itertools.pairwise(bounds)])
    return jnp.moveaxis(mixed_JBTKGH, 0, 1).reshape(rows, blocks * block, *query_BTKGH.shape[2:])[:, :length]
