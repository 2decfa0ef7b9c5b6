"""Log-probabilities of the solver: shared prompts, few logits and adapters in the last blocks change no result."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama import Llama, lora, suffix
from mass_jax.method.models import Solver, Weights
from mass_jax.method.text import join_rollout
from mass_jax.types import Adapter
from tests.small_models import LLAMA, llama_params

PROMPT, NEW = 6, 4
CONFIG = dataclasses.replace(LLAMA, num_hidden_layers=3)


@pytest.fixture
def text():
    """Rows of one problem: a prompt of 4 tokens, and 3 completions of 1 to 4 tokens."""
    draw = np.random.default_rng(0)
    prompts_NT, samples_NMT = (draw.integers(1, CONFIG.vocab_size, shape) for shape in ((1, PROMPT), (1, 3, NEW)))
    counts_NM = np.array([[4, 1, 2]])
    rollout = join_rollout(prompts_NT, np.array([4]), samples_NMT, np.zeros(samples_NMT.shape, np.float32), counts_NM)
    return jax.tree.map(lambda leaf: leaf[0], rollout.text)


@pytest.fixture
def base(x64):
    return llama_params(CONFIG)


def adapter_of(blocks, seed):
    config = dataclasses.replace(CONFIG, num_hidden_layers=blocks)
    made = lora.init(jax.random.key(seed), config, 2, ("q_proj", "down_proj"), dtype=jnp.float64)
    return jax.tree.map(lambda leaf: leaf + 0.05, made)


def value_and_gradient(f, *arguments):
    return jax.jit(jax.value_and_grad(lambda *a: (f(*a) ** 2).sum()))(*arguments)


@pytest.mark.parametrize("generator_blocks", [0, 1])
def test_continuation_logprobs_match_logprobs(base, text, generator_blocks):
    solver = Solver(Llama(CONFIG), "lora", generator_blocks=generator_blocks)
    policy = adapter_of(generator_blocks or 3, 1).leaves
    found = value_and_gradient(lambda p: solver.continuation_logprobs(Weights(base, p), text, NEW), policy)
    wanted = value_and_gradient(
        lambda p: jnp.where(text.target_BT > 0, solver.logprobs(Weights(base, p), text), 0), policy
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12), found, wanted)


def test_generator_blocks_match_whole_adapter(base, text):
    own = adapter_of(1, 1)
    whole, last = (Solver(Llama(CONFIG), "lora", generator_blocks=blocks) for blocks in (0, 1))
    inner = adapter_of(3, 2)

    @jax.jit
    def of(policy, wide):
        few, all_ = Weights(base, policy), Weights(base, wide)
        return (
            (last.logprobs(few, text), whole.logprobs(all_, text)),
            (last.logprobs(few, text, inner), whole.logprobs(all_, text, inner)),
            (last.completion_nll(few, text), whole.completion_nll(all_, text)),
        )

    for found, wanted in of(own.leaves, suffix.widen(own, 3).leaves):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("inner_blocks", "generator_blocks"), [(0, 0), (2, 1), (1, 2)])
def test_max_target_tokens_keeps_completion_nll(base, text, inner_blocks, generator_blocks):
    plain = Solver(Llama(CONFIG), "lora", inner_blocks, generator_blocks)
    few = dataclasses.replace(plain, max_target_tokens=NEW)
    weights = Weights(base, adapter_of(generator_blocks or 3, 1).leaves)
    leaves = adapter_of(inner_blocks or 3, 2).leaves

    def loss(solver):
        return value_and_gradient(
            lambda leaves: solver.completion_nll(weights, solver.read(weights, text), Adapter(leaves)), leaves
        )

    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12), loss(few), loss(plain))


def test_continuation_logprobs_of_masked_rows_are_zero(base, text):
    masked = text._replace(target_BT=np.zeros_like(text.target_BT))
    solver = Solver(Llama(CONFIG))
    found = jax.jit(lambda: solver.continuation_logprobs(Weights({}, base), masked, NEW))()
    assert (found == 0).all()
