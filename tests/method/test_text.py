"""Rows of prompt and completion, built with the real tokenizer."""

import numpy as np
import pytest

from mass_jax.method.text import TooLong, cut_off, encode_pairs, encode_prompts, join_rollout


@pytest.fixture
def tokenizer(parts):
    return parts.dialogue.tokenizer


def test_pairs_become_prompt_completion_and_eos(tokenizer):
    text, too_long = encode_pairs(tokenizer, [("solve", "1 2"), None], length=8)
    first = text.tokens_BT[0][text.mask_BT[0]]
    assert tokenizer.convert_ids_to_tokens(first.tolist()) == ["<s>", "solve", "1", "2", "</s>"]
    assert text.target_BT[0].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert not text.mask_BT[1].any()
    assert not text.target_BT[1].any()
    assert too_long == 0


def test_a_pair_that_does_not_fit_is_masked_and_counted(tokenizer):
    text, too_long = encode_pairs(tokenizer, [("solve", "1 2"), ("solve", "1 2 3 4 5 6 7")], length=6)
    assert too_long == 1
    assert text.mask_BT.any(-1).tolist() == [True, False]


def test_a_prompt_that_does_not_fit_is_an_error_that_names_the_flag(tokenizer):
    with pytest.raises(TooLong, match=r"6 tokens.*max_prompt_tokens=4.*raise --max_prompt_tokens to 6"):
        encode_prompts(tokenizer, ["solve 1 2 3 4"], length=4)


def test_rollouts_stand_behind_their_prompts_without_a_gap():
    prompts, lengths = np.array([[1, 5, 0], [1, 6, 7]]), np.array([2, 3])
    samples = np.array([[[8, 9]], [[8, 2]]])
    logprobs = np.array([[[-1.0, -9.0]], [[-2.0, -3.0]]])
    rollout = join_rollout(prompts, lengths, samples, logprobs, np.array([[1], [2]]))
    assert rollout.text.tokens_BT[:, 0].tolist() == [[1, 5, 8, 0, 0], [1, 6, 7, 8, 2]]
    assert rollout.text.target_BT[:, 0].tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert rollout.logprobs_BT[:, 0].tolist() == [[0, 0, -1, 0, 0], [0, 0, 0, -2, -3]]


def test_a_completion_without_a_stop_token_was_cut_off():
    prompts, lengths = np.array([[1, 2, 0], [1, 6, 7]]), np.array([2, 3])  # 2 stops; one stands in a prompt
    samples = np.array([[[8, 9], [8, 2]], [[2, 0], [0, 0]]])
    rollout = join_rollout(prompts, lengths, samples, np.zeros(samples.shape), np.array([[2, 2], [1, 2]]))
    assert cut_off(rollout, (2, 3)).tolist() == [[True, False], [False, True]]
