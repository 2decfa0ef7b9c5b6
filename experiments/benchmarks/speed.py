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


def bytes_per_step(
    config: LlamaConfig, params: Any, adapter: Any, *, prompts: int, samples: int, prompt_tokens: int, new: int
) -> int:
    """Returns the bytes that an average step of decoding has to read: weights, adapters, keys and values.

    Args:
        config: the model's configuration.
        params: the weights; keys and values have the dtype of their norms.
        adapter: adapters in use, shared or one per prompt; None if there are none.
        prompts: number of prompts; the samples of a prompt share its keys and values.
        samples: samples per prompt.
        prompt_tokens: length of the prompts.
        new: number of generated tokens; on average, half of them are in the cache.

    >>> config = LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=2, num_attention_heads=1)
    >>> norm = {"norm": {"weight": jnp.ones(4)}}  # 16 bytes
    >>> bytes_per_step(config, norm, None, prompts=1, samples=2, prompt_tokens=3, new=8)  # and 11 tokens of 64 bytes
    720
    """
    itemsize = params["norm"]["weight"].dtype.itemsize
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * itemsize
    cached = prompts * prompt_tokens + prompts * samples * new // 2
    return bytes_per_token(config, params) + sum(leaf.nbytes for leaf in jax.tree.leaves(adapter)) + cached * token


def bandwidth_share(seconds: float, read_bytes: int, new: int, bandwidth: float) -> dict[str, float]:
    """Compares the rate at which decoding reads memory with the bandwidth.

    Args:
        seconds: time to decode `new` tokens per sample.
        read_bytes: bytes read per step.
        new: number of tokens per sample.
        bandwidth: bytes per second.

    Returns:
        The rate in bytes per second, and its share of the bandwidth.

    >>> bandwidth_share(2.0, 50, 10, 1000.0)
    {'bytes_per_second': 250.0, 'share': 0.25}
    """
    rate = read_bytes * new / seconds
    return {"bytes_per_second": rate, "share": rate / bandwidth}


def read_bandwidth() -> float:
    """Measures the fastest plain read of an array, in bytes per second."""
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
    return array.nbytes / min(times)
