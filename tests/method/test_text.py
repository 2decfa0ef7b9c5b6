"""Rows of prompt and completion, encoded with the embedded tokenizer."""

import dataclasses
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
def tokenizer(components):
    return components.rollouts.dialogue.tokenizer


def test_encode_pairs_appends_eos(tokenizer):
    text, too_long = encode_pairs(tokenizer, [("solve", "1 2"), None], length=8)
    first = text.tokens_BT[0][text.mask_BT[0]]
    assert tokenizer.convert_ids_to_tokens(first.tolist()) == ["<s>", "solve", "1", "2", "</s>"]
    assert text.target_BT[0].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert not text.mask_BT[1].any()
    assert not text.target_BT[1].any()
    assert too_long == 0


def test_encode_pairs_masks_too_long_pairs(tokenizer):
    text, too_long = encode_pairs(tokenizer, [("solve", "1 2"), ("solve", "1 2 3 4 5 6 7")], length=6)
    assert too_long == 1
    assert text.mask_BT.any(-1).tolist() == [True, False]


def test_encode_pairs_masks_long_completions(tokenizer):
    pairs = [("solve", "1 2"), ("solve", "1 2 3"), ("solve", "1")]
    text, too_long = encode_pairs(tokenizer, pairs, length=8, max_targets=3)  # two tokens and the end token
    assert too_long == 1
    assert text.target_BT.sum(-1).tolist() == [3, 0, 2]


def test_gold_with_long_solution_names_both_flags(components):
    dialogue = dataclasses.replace(components.rollouts.dialogue, max_target_tokens=1)
    with pytest.raises(TooLong, match=r"does not fit; raise --max_answer_tokens or --max_target_tokens$"):
        dialogue.gold(components.problems(0).train[:1])


def test_encode_prompts_names_flag_when_too_long(tokenizer):
    with pytest.raises(TooLong, match=r"6 tokens.*max_prompt_tokens=4.*raise --max_prompt_tokens to 6"):
        encode_prompts(tokenizer, ["solve 1 2 3 4"], length=4)


def test_join_rollout_leaves_no_gap():
    prompts, lengths = np.array([[1, 5, 0], [1, 6, 7]]), np.array([2, 3])
    samples = np.array([[[8, 9]], [[8, 2]]])
    logprobs = np.array([[[-1.0, -9.0]], [[-2.0, -3.0]]])
    rollout = join_rollout(prompts, lengths, samples, logprobs, np.array([[1], [2]]))
    assert rollout.text.tokens_BT[:, 0].tolist() == [[1, 5, 8, 0, 0], [1, 6, 7, 8, 2]]
    assert rollout.text.target_BT[:, 0].tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert rollout.logprobs_BT[:, 0].tolist() == [[0, 0, -1, 0, 0], [0, 0, 0, -2, -3]]


def test_cut_off_without_stop_token():
    prompts, lengths = np.array([[1, 2, 0], [1, 6, 7]]), np.array([2, 3])  # 2 is a stop token; one is in a prompt
    samples = np.array([[[8, 9], [8, 2]], [[2, 0], [0, 0]]])
    rollout = join_rollout(prompts, lengths, samples, np.zeros(samples.shape), np.array([[2, 2], [1, 2]]))
    assert cut_off(rollout, (2, 3)).tolist() == [[True, False], [False, True]]


def test_dialogue_read_drops_end_token(components):
    """The end token of a task or a configuration need not be special to the tokenizer."""
    end = components.rollouts.dialogue.tokenizer.convert_tokens_to_ids("7")
    tokens = np.array([[[10, 11, end, 0], [10, 11, end, 12]]], np.int32)
    samples = sampling.Samples(tokens, np.zeros(tokens.shape), np.array([[3, 4]]), np.array([[True, False]]))
    assert components.rollouts.dialogue.read(samples) == [["1 2", "1 2 7 3"]]


def test_assemble_sets_one_stop_token(components):
    assert components.rollouts.dialogue.end_token == 2
    assert components.rollouts.solver.config.stop_tokens == (2,)


def test_assemble_unites_stop_tokens(tmp_path):
    """Stop tokens come from config.json, generation_config.json and the tokenizer; pairs end with the tokenizer's."""
    directory = shutil.copytree(TINY, tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "eos_token_id": [5, 6]}))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    components = assemble(Config(model=str(directory)))
    assert set(components.rollouts.solver.config.stop_tokens) == {5, 6, 7, 2}
    gold = components.rollouts.dialogue.gold(components.problems(0).train[:1])
    assert gold.text.tokens_BT[0, 0][gold.text.mask_BT[0, 0]][-1] == 2
    suite = encode_suite(components.rollouts.dialogue, [("solve 1", "2"), ("solve 1", "2 </s>")])
    assert suite.tokens_BT.tolist() == 2 * [components.rollouts.dialogue.tokenizer("solve 1 2 </s>")["input_ids"]]


def test_encode_suite_ignores_appended_eos(tmp_path):
    directory = shutil.copytree(TINY, tmp_path / "model")
    plain = assemble(Config(model=str(directory))).rollouts.dialogue
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["post_processor"]["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    tokenizer["post_processor"]["special_tokens"]["</s>"] = {"id": "</s>", "ids": [2], "tokens": ["</s>"]}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    closing = assemble(Config(model=str(directory))).rollouts.dialogue
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
