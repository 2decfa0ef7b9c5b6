"""Times of interleaved runs, and the share of the memory bandwidth that decoding reaches."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from mass_jax.llama import LlamaConfig


def interleave(name: str, functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run; the sides alternate, after one warm-up run each that compiles."""
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
    """Bytes of weights read to decode one token; an embedding that is not also the output head is not counted."""
    read = {name: leaf for name, leaf in params.items() if name != "embed_tokens" or config.tie_word_embeddings}
    return sum(leaf.nbytes for leaf in jax.tree.leaves(read))


def bandwidth_share(seconds: float, read_bytes: int, new: int) -> dict[str, float]:
    """Bytes of weights read per second while decoding, as a share of the fastest plain read of an array."""
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
