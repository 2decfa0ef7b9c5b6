"""Continuations of a sampler become arrays; those that contradict the protocol are refused in one line."""

import numpy as np
import pytest

from mass_jax.errors import UserError
from mass_jax.sampling import Continuation, Settings
from mass_jax.sampling.conversion import to_samples
from mass_jax.sampling.loop import Request
from mass_jax.sampling.sampler import check_protocol

_REQUEST = Request(num_samples=2, max_new_tokens=4, settings=Settings(), stop_tokens=(5, 6), pad_token=9)


def _one(tokens, finish="stop", logprobs=None):
    logprobs = [-1.0] * len(tokens) if logprobs is None else logprobs
    return Continuation(np.array(tokens, np.int32), np.array(logprobs, np.float32), "", finish)


def test_to_samples_pads_and_keeps_ends():
    rows = [[_one([1, 5]), _one([1, 2, 3, 4], "length")], [_one([6]), _one([3], "length", [-0.5])]]
    found = to_samples(rows, 2, _REQUEST, 10, "mine")
    assert found.tokens_NMT.tolist() == [[[1, 5, 9, 9], [1, 2, 3, 4]], [[6, 9, 9, 9], [3, 9, 9, 9]]]
    assert found.logprobs_NMT[1].tolist() == [[-1, 0, 0, 0], [-0.5, 0, 0, 0]]
    assert found.lengths_NM.tolist() == [[2, 4], [1, 1]]
    assert found.finished_NM.tolist() == [[True, False], [True, False]]
    assert [leaf.dtype.name for leaf in found] == ["int32", "float32", "int32", "bool"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (_one([]), r"tokens_T is int32\[0\]; return 1 to 4 integers"),
        (_one([1, 2, 3, 4, 5]), r"return 1 to 4 integers"),
        (_one([1.5, 5])._replace(tokens_T=np.array([1.5, 5])), r"tokens_T is float64\[2\]"),
        (_one([10], "length"), "a token is 10; return ids from 0 to 9"),
        (_one([-2, 5]), "a token is -2; return ids"),
        (_one([1, 5], logprobs=[-1.0]), r"there are 2 tokens and logprobs_T\[1\]"),
        (_one([1, 5], logprobs=[-1.0, np.nan]), "a log-probability is not finite"),
        (_one([1, 5], "eos"), "finish is 'eos'; return 'stop' or 'length'"),
        (_one([1, 5, 2], "length"), "tokens follow stop token 5"),
        (_one([1, 2], "stop"), "finish is 'stop', but the last token is 2; keep the stop token"),
        (_one([1, 5], "length"), "finish is 'length', but the last token is 5"),
    ],
)
def test_to_samples_names_broken_continuation(second, message):
    with pytest.raises(UserError, match=message) as caught:
        to_samples([[_one([5]), second]], 1, _REQUEST, 10, "mine")
    assert str(caught.value).startswith("--sampler=mine broke its protocol in sample 1 of prompt 0: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [[], [[_one([5])]], [[_one([5])] * 2] * 2])
def test_to_samples_counts_samples(rows):
    with pytest.raises(UserError, match="return 2 for each of 1 prompts"):
        to_samples(rows, 1, _REQUEST, 10, "mine")


def test_check_protocol_names_missing_argument():
    with pytest.raises(UserError, match="mine is not a Sampler: got an unexpected keyword argument 'adapters'"):
        check_protocol(
            lambda params, prompts, keys_N, *, num_samples, max_new_tokens, settings, stop_tokens, stop_strings: [],
            "mine",
        )
