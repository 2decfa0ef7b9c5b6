"""Rows of prompt and completion, built with the real tokenizer."""

import importlib.resources
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from mass_jax import sampling
from mass_jax.config import Config
from mass_jax.method.text import TooLong, cut_off, encode_pairs, encode_prompts, join_rollout
from mass_jax.serving.guards.regression import encode_suite
from mass_jax.tasks.base import Problem
from mass_jax.training.components import assemble

TINY = pathlib.Path(str(importlib.resources.files("mass_jax") / "data" / "tiny"))


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


def test_read_leaves_out_the_end_token(parts):
    """The end token of a task or a configuration is not always special to the tokenizer."""
    end = parts.dialogue.tokenizer.convert_tokens_to_ids("7")
    tokens = np.array([[[10, 11, end, 0], [10, 11, end, 12]]], np.int32)
    samples = sampling.Samples(tokens, np.zeros(tokens.shape), np.array([[3, 4]]), np.array([[True, False]]))
    assert parts.dialogue.read(samples) == [["1 2", "1 2 7 3"]]


def test_assembled_parts_stop_at_one_token(parts):
    assert parts.dialogue.end_token == 2
    assert parts.solver.config.stop_tokens == (2,)


def test_assembled_stop_tokens_are_a_union(tmp_path):
    """Those of config.json, generation_config.json and the tokenizer; pairs end with the tokenizer's."""
    directory = shutil.copytree(TINY, tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "eos_token_id": [5, 6]}))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    parts = assemble(Config(model=str(directory)))
    assert set(parts.solver.config.stop_tokens) == {5, 6, 7, 2}
    gold = parts.dialogue.gold(parts.problems(0).train[:1])
    assert gold.text.tokens_BT[0, 0][gold.text.mask_BT[0, 0]][-1] == 2
    suite = encode_suite(parts.dialogue, [("solve 1", "2"), ("solve 1", "2 </s>")])
    assert suite.tokens_BT.tolist() == 2 * [parts.dialogue.tokenizer("solve 1 2 </s>")["input_ids"]]


def test_regression_suite_ignores_an_appended_eos(tmp_path):
    directory = shutil.copytree(TINY, tmp_path / "model")
    plain = assemble(Config(model=str(directory))).dialogue
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["post_processor"]["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    tokenizer["post_processor"]["special_tokens"]["</s>"] = {"id": "</s>", "ids": [2], "tokens": ["</s>"]}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    closing = assemble(Config(model=str(directory))).dialogue
    pairs = [("solve 1", "2 3"), ("4", "5")]
    for one, other in zip(encode_suite(plain, pairs), encode_suite(closing, pairs), strict=True):
        np.testing.assert_array_equal(one, other)
    problem = Problem("p", "4 kabo 3", "1 2", "1 2")
    for one, other in (
        (plain.solver_prompts([problem]), closing.solver_prompts([problem])),
        (plain.generator_prompts([problem]), closing.generator_prompts([problem])),
        (plain.few_shot_prompts([problem], [[]]), closing.few_shot_prompts([problem], [[]])),
        (plain.gold([problem]).text, closing.gold([problem]).text),
    ):
        jax.tree.map(np.testing.assert_array_equal, one, other)
