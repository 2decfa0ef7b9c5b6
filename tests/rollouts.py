"""Rollouts of random tokens."""

import numpy as np

from mass_jax.method.text import Rollout, join_rollout


def random_rollout(seed: int, shape: tuple[int, int], prompt: int, new: int, vocabulary: int) -> Rollout:
    """Returns a rollout with prompts and completions of random lengths, and log-probability -2 of each token.

    Args:
        seed: random seed.
        shape: numbers of problems N and of samples per problem M.
        prompt: slots for prompt tokens.
        new: slots for generated tokens.
        vocabulary: number of token ids.
    """
    draw = np.random.default_rng(seed)
    prompts_NT = draw.integers(0, vocabulary, (shape[0], prompt), np.int32)
    samples_NMT = draw.integers(0, vocabulary, (*shape, new), np.int32)
    lengths_N, counts_NM = draw.integers(1, prompt + 1, shape[0]), draw.integers(1, new + 1, shape)
    logprobs_NMT = np.full(samples_NMT.shape, -2.0, np.float32)
    return join_rollout(prompts_NT, lengths_N, samples_NMT, logprobs_NMT, counts_NM)
