"""The plain model continues texts as evaluation does, and scores them as a softmax over the logits does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.errors import UserError
from mass_jax.evaluation import evaluate
from mass_jax.harnesses import opening, options
from mass_jax.harnesses.requests import Request
from mass_jax.llama import lora
from mass_jax.tasks.base import Verdict
from tests.small_models import components


@pytest.fixture(scope="module")
def plain():
    return opening.open_model(options.parse({"pretrained": "tiny", "batch_size": 2}))


def test_answers_are_those_of_evaluation(plain):
    made = components()
    task, problems = made.rollouts.dialogue.task, made.problems(0)
    job = evaluate.Job(made.config, made.on_every_process().rollouts, made.pretrained(), "base", problems, 0)
    asked = [problem for column in problems.columns.values() for problem in column]
    records = [
        record
        for column, batch in problems.columns.items()
        for record in evaluate.answer(job, column, batch, jax.random.key(0))()
    ]
    limit = made.config.max_answer_tokens
    completions = plain.generate([Request(task.solver_prompt(problem.problem), limit) for problem in asked])
    assert [completion.text for completion in completions] == [record["response"] for record in records]
    verdicts = task.verify(asked, [completion.text for completion in completions])
    assert [int(verdict is Verdict.RIGHT) for verdict in verdicts] == [record["right"] for record in records]
    read = [record["tokens_read"] for record in records]
    assert [completion.prompt_tokens for completion in completions] == read
    assert [completion.new_tokens for completion in completions] == [record["tokens_written"] for record in records]


def test_requests_keep_their_order_and_stops(plain):
    prompts = ["solve 4 kabo 3 =", "solve", "solve 9 lepa 2 = 1 ; solve 3 kabo 1 ="]
    greedy = [completion.text for completion in plain.generate([Request(text, 3) for text in prompts])]
    mixed = [
        Request(prompts[2], 3),
        Request(prompts[0], 3, stops=(greedy[0][-1],)),
        Request(prompts[1], 3),
    ]
    found = plain.generate(mixed)
    assert [found[0].text, found[2].text] == [greedy[2], greedy[1]]
    assert found[1].text == greedy[0].partition(greedy[0][-1])[0]
    assert found[1].finish == "stop"


@functools.partial(jax.jit, static_argnums=0)
def logits(model, variables, tokens_BT):
    return model.apply(variables, tokens_BT)


def test_scores_are_sums_of_log_probabilities(plain):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: lora.init(jax.random.key(0), plain.model.config, 2))
    drawn = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype), shapes)
    plain = plain.with_adapter(drawn)
    rows = [(rng.integers(3, 60, n).tolist(), rng.integers(3, 60, m).tolist()) for n, m in ((3, 2), (9, 1), (1, 7))]
    variables = lora.variables(plain.params, plain.adapter)
    greedy = []
    for context, continuation in rows:
        tokens = np.zeros((1, 10), np.int32)
        tokens[0, : len(context) + len(continuation)] = [*context, *continuation]
        logprobs_TV = np.asarray(jax.nn.log_softmax(logits(plain.model, variables, tokens)[0]))
        at = len(context) - 1 + np.arange(len(continuation))
        expected = logprobs_TV[at, continuation].sum()
        best = logprobs_TV[len(context) - 1].argmax()
        greedy.append((context, [int(best)]))
        score = plain.score([(context, continuation)])[0]
        np.testing.assert_allclose(score.logprob, expected, rtol=1e-5)
        assert score.greedy == (logprobs_TV[at].argmax(-1) == continuation).all()
    alone = [plain.score([row])[0].logprob for row in rows]
    np.testing.assert_allclose([score.logprob for score in plain.score(rows)], alone, rtol=1e-5)
    assert all(score.greedy for score in plain.score(greedy))


def test_long_contexts_lose_their_start(plain):
    short = opening.open_model(options.parse({"pretrained": "tiny", "batch_size": 2, "max_length": 8}))
    row = (list(range(3, 13)), [5, 6])
    np.testing.assert_allclose(short.score([row])[0], plain.score([(row[0][-7:], row[1])])[0], rtol=1e-5)
    text = "solve 4 kabo 3 ="
    tail = short.generate([Request(f"{text} 1 2 ; {text}", 2)])[0]
    assert (tail.prompt_tokens, tail.new_tokens) == (6, 2)
    with pytest.raises(UserError, match="at most 8 tokens were requested; give 1 to 7"):
        short.generate([Request(text, 8)])
    with pytest.raises(UserError, match="a continuation has 9 tokens: the model has 8 positions"):
        short.score([([3], [3] * 9)])
    with pytest.raises(UserError, match="has no tokens"):
        short.score([([3], [])])
