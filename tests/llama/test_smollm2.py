"""Parity of SmolLM2-135M-Instruct with transformers; -m slow: takes minutes, and downloads the model if needed."""

import os
import pathlib

import jax
import numpy as np
import pytest
import torch

from experiments.tools import fetch_smollm2
from mass_jax import sampling
from mass_jax.llama import Llama, LlamaConfig, tokenizer, weights

pytestmark = pytest.mark.slow

_QUESTIONS = (
    "What is the capital of France?",
    "Name three primary colors.",
    "How many legs does a spider have?",
    "Write one sentence about the sea.",
    "What is 17 + 25?",
    "Translate 'good morning' into Spanish.",
    "Why is the sky blue?",
    "List four kinds of fruit.",
    "Who wrote Romeo and Juliet?",
    "Give a synonym of 'happy'.",
    "How do I boil an egg?",
    "What does a thermometer measure?",
    "Tell me a short joke.",
    "Which planet is the largest?",
    "What is the opposite of cold?",
    "Explain gravity to a child.",
    "Write a title for a story about a dog.",
    "What comes after Wednesday?",
    "How many minutes are in two hours?",
    "Describe a tree in ten words.",
)
_NEW = 32


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Returns the directory in MASS_JAX_SMOLLM2, or downloads the model."""
    if "MASS_JAX_SMOLLM2" in os.environ:
        return pathlib.Path(os.environ["MASS_JAX_SMOLLM2"])
    pytest.importorskip("gguf")
    fetch_smollm2.fetch(path := tmp_path_factory.mktemp("smollm2"))
    return path


@pytest.fixture(scope="module")
def theirs(directory):
    import transformers

    return transformers.LlamaForCausalLM.from_pretrained(directory).eval()


@pytest.fixture(scope="module")
def ours(directory):
    config = LlamaConfig.from_directory(directory)
    return Llama(config), weights.load(directory, config), tokenizer.load(directory)


def _prompts(words):
    turns = [[{"role": "user", "content": question}] for question in _QUESTIONS]
    return [words.apply_chat_template(turn, add_generation_prompt=True)["input_ids"] for turn in turns]


def test_smollm2_logits_match_transformers(ours, theirs):
    model, params, words = ours
    tokens_BT = np.array([(prompt * 3)[:96] for prompt in _prompts(words)[:4]], np.int32)
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens_BT)).logits.numpy()
    found = np.asarray(jax.jit(model.apply)({"params": params}, tokens_BT))
    np.testing.assert_allclose(found, wanted, atol=1e-3, rtol=0)


def test_smollm2_greedy_text_matches_transformers(ours, theirs):
    model, params, words = ours
    prompts = _prompts(words)
    wanted = []
    for prompt in prompts:
        with torch.no_grad():
            whole = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=_NEW)
        wanted.append(words.decode(whole[0, len(prompt) :], skip_special_tokens=True))
    found = sampling.Engine(model, words)(
        sampling.unstack(params),
        prompts,
        jax.random.split(jax.random.key(0), len(prompts)),
        num_samples=1,
        max_new_tokens=_NEW,
        settings=sampling.Settings(temperature=0.0),
        stop_tokens=model.config.stop_tokens,
    )
    assert [sample.text for (sample,) in found] == wanted
