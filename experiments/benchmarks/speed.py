"""Timing of interleaved runs, and memory bandwidth of decoding."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from mass_jax.llama import LlamaConfig


def interleave(name: str, functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Times several functions in alternation, after one warm-up call of each that compiles.

    Args:
        name: name of the case, for the log.
        functions: functions by side.
        repeats: number of timed calls of each.

    Returns:
        Seconds of each call, by side.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {side: [] for side in functions}
    for _ in range(repeats):
        for side, function in functions.items():
            begin = time.perf_counter()
            function()
            seconds[side].append(time.perf_counter() - begin)
    medians = {side: round(statistics.median(values), 3) for side, values in seconds.items()}
    logging.info("%s: median seconds %s", name, medians)
    return seconds


def bytes_per_token(config: LlamaConfig, params: Any) -> int:
    """Returns the bytes of weights read per decoded token, without the embedding if it is not also the output head."""
    read = {name: leaf for name, leaf in params.items() if name != "embed_tokens" or config.tie_word_embeddings}
    return sum(leaf.nbytes for leaf in jax.tree.leaves(read))


def bandwidth_share(seconds: float, read_bytes: int, new: int) -> dict[str, float]:
    """Compares the rate at which decoding reads weights with the fastest plain read of an array.

    Args:
        seconds: time to decode `new` tokens.
        read_bytes: bytes of weights read per token.
        new: number of tokens.

    Returns:
        Both rates in bytes per second, and their ratio.
    """
    import torch

    array = jnp.ones((2**13, 2**14), jnp.float32)
    vector, other = jnp.ones(2**14, jnp.float32), torch.ones(2**13, 2**14)
    total, product = jax.jit(jnp.sum), jax.jit(jnp.dot)
    readers: dict[str, Callable[[], Any]] = {
        "sum": lambda: jax.block_until_ready(total(array)),
        "matrix times vector": lambda: jax.block_until_ready(product(array, vector)),
        "torch sum": lambda: other.sum().item(),
    }
    times = [min(values) for values in interleave("reading", readers, repeats=8).values()]
    limit, decode = array.nbytes / min(times), read_bytes * new / seconds
    return {"decode_bytes_per_second": decode, "read_bytes_per_second": limit, "share": decode / limit}
