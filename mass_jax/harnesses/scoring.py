"""Log-likelihoods of continuations, given their contexts.

Shape suffixes: B rows, T tokens, C continuation tokens, D hidden size, V vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.errors import UserError
from mass_jax.harnesses.requests import Score
from mass_jax.llama import Llama
from mass_jax.llama.precision import wide
from mass_jax.sampling.engine import bucket

Row = tuple[Sequence[int], Sequence[int]]
"""Tokens of a context and of its continuation; each has at least one."""

_LEAST = 16  # tokens in the smallest bucket


def scores(model: Llama, variables: Any, rows: Sequence[Row], batch: int, max_length: int) -> list[Score]:
    r"""Scores continuations.

    .. math:: \sum_t \log p(y_t \mid x, y_{<t})

    Contexts lose their first tokens where a row is longer than the model's positions.

    Args:
        model: the model.
        variables: its parameters and adapter; from `lora.variables`.
        rows: contexts x with continuations y, as tokens.
        batch: rows per batch; the last row is repeated to fill a batch.
        max_length: positions of the model.

    Returns:
        One score per row.

    Raises:
        UserError: a context or continuation is empty, or a continuation is longer than the model's positions.
    """
    for context, continuation in rows:
        if not context or not continuation:
            raise UserError("a context or continuation has no tokens: give each at least one character")
        if len(continuation) > max_length:
            raise UserError(f"a continuation has {len(continuation)} tokens: the model has {max_length} positions")
    order = sorted(range(len(rows)), key=lambda i: -sum(map(len, rows[i])))
    found: dict[int, Score] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        filled = [rows[i] for i in (*chosen, *[chosen[-1]] * (batch - len(chosen)))]
        logprobs_B, greedy_B = jax.device_get(_scores(model, variables, *_arrays(filled, max_length)))
        found |= {i: Score(float(logprobs_B[b]), bool(greedy_B[b])) for b, i in enumerate(chosen)}
    return [found[i] for i in range(len(rows))]


def _arrays(rows: Sequence[Row], max_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns padded inputs_BT, which lack the last token, their lengths_B, labels_BC, and the numbers of labels_B."""
    texts = [[*context, *continuation][-(max_length + 1) :] for context, continuation in rows]
    width, count = bucket(max(map(len, texts)) - 1, _LEAST), bucket(max(len(labels) for _, labels in rows))
    inputs_BT, labels_BC = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), count), np.int32)
    for b, (text, (_, continuation)) in enumerate(zip(texts, rows, strict=True)):
        inputs_BT[b, : len(text) - 1], labels_BC[b, : len(continuation)] = text[:-1], continuation
    lengths_B = np.array([len(text) - 1 for text in texts], np.int32)
    return inputs_BT, lengths_B, labels_BC, np.array([len(labels) for _, labels in rows], np.int32)


@functools.partial(jax.jit, static_argnames="model")
def _scores(
    model: Llama,
    variables: dict[str, Any],
    inputs_BT: jax.Array,
    lengths_B: jax.Array,
    labels_BC: jax.Array,
    counts_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns the log-likelihood of each row's labels, and whether all are the most likely tokens."""
    mask_BT = jnp.arange(inputs_BT.shape[1]) < lengths_B[:, None]
    offsets_C = jnp.arange(labels_BC.shape[1])
    x_BTD: Any = model.apply(variables, inputs_BT, method="embed")
    hidden_BTD: Any = model.apply(variables, x_BTD, mask_BT, method="read")
    slots_BC = jnp.clip((lengths_B - counts_B)[:, None] + offsets_C, 0, inputs_BT.shape[1] - 1)
    hidden_BCD = jnp.take_along_axis(hidden_BTD, slots_BC[..., None], axis=1)
    logits_BCV: Any = model.apply({"params": variables["params"]}, hidden_BCD, method="head")
    logprobs_BCV = jax.nn.log_softmax(logits_BCV.astype(wide(logits_BCV.dtype)))
    logprobs_BC = jnp.take_along_axis(logprobs_BCV, labels_BC[..., None], axis=-1)[..., 0]
    inside_BC = offsets_C < counts_B[:, None]
    greedy_B = jnp.all(~inside_BC | (jnp.argmax(logits_BCV, axis=-1) == labels_BC), axis=-1)
    return jnp.where(inside_BC, logprobs_BC, 0).sum(-1), greedy_B
