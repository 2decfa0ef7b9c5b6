"""Tests for the metrics of sampled completions."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax import sampling
from mass_jax.llama import Llama
from mass_jax.method.text import join_rollout
from mass_jax.training.example_metrics import completion_metrics
from tests.small_models import LLAMA, llama_params

STOP = 2


def _rollouts():
    """Returns what the metrics read of `Rollouts`: one process with all problems, and the stop tokens."""
    solver = types.SimpleNamespace(config=types.SimpleNamespace(stop_tokens=(STOP,)))
    return types.SimpleNamespace(feed=types.SimpleNamespace(rows=lambda count: slice(0, count)), solver=solver)


def _rollout(lengths_NM, logprobs_NMT, tokens_NMT):
    prompts_NP = np.full((len(lengths_NM), 2), 5, np.int32)
    return join_rollout(prompts_NP, np.full(len(lengths_NM), 2), tokens_NMT, logprobs_NMT, lengths_NM)


def test_completion_metrics_ignore_padding_and_prompts():
    lengths_NM = np.array([[1, 3], [2, 4]])
    logprobs_NMT = np.full((2, 2, 4), -np.log(4.0), np.float32)
    tokens_NMT = np.full((2, 2, 4), 7, np.int32)
    for n, m in ((0, 0), (0, 1), (1, 0)):
        tokens_NMT[n, m, lengths_NM[n, m] - 1] = STOP
    found = completion_metrics(_rollouts(), [None, None], {"a": _rollout(lengths_NM, logprobs_NMT, tokens_NMT)})
    assert found == {
        "a_cut_off": 0.25,
        "a_entropy": pytest.approx(np.log(4.0)),
        "a_length": 2.5,
        "a_length_min": 1.0,
        "a_length_max": 4.0,
    }


def test_entropy_of_samples_approximates_that_of_the_logits():
    model, params = Llama(LLAMA), llama_params(LLAMA)
    prompts_NP, lengths_N = jnp.array([[5, 6]]), jnp.array([2])
    drawn = sampling.sample(
        model, params, prompts_NP, lengths_N, jax.random.split(jax.random.key(0), 1), num_samples=4000, max_new_tokens=1
    )
    tokens, logprobs, lengths = map(np.asarray, (drawn.tokens_NMT, drawn.logprobs_NMT, drawn.lengths_NM))
    rollout = join_rollout(np.asarray(prompts_NP), np.asarray(lengths_N), tokens, logprobs, lengths)
    logprobs_V = jax.nn.log_softmax(model.apply({"params": params}, prompts_NP)[0, -1])
    expected = -jnp.sum(jnp.exp(logprobs_V) * logprobs_V)
    found = completion_metrics(_rollouts(), [None], {"a": rollout})
    assert found["a_entropy"] == pytest.approx(float(expected), abs=0.05)
