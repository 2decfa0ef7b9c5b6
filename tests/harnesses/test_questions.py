"""The adapting model answers as the method does, and scores under the adapter of each question."""

import dataclasses

import numpy as np
import pytest

from mass_jax.audit import log
from mass_jax.errors import UserError
from mass_jax.harnesses.questions import name_of
from mass_jax.harnesses.requests import Request
from mass_jax.llama import lora
from mass_jax.llama.tokenizer import encode
from mass_jax.sampling import Settings
from mass_jax.serving import stages
from mass_jax.tasks.base import Problem

pytestmark = pytest.mark.slow  # 30 s of compilation, in a CI job with the harnesses

QUESTIONS = ["4 kabo 3", "2 lepa 7", "5 kabo 5", "9 kisu 1"]
LIMIT = 8


@pytest.fixture(scope="module")
def method(adapting):
    """Adapters and answers by the functions that training and evaluation use, with the service's keys."""
    model = adapting.service.setup.model
    tasks = [Problem(name_of(text), text, "", "") for text in QUESTIONS]
    keys = stages.keys_of(3, [task.id for task in tasks])
    rollouts, count = model.rollouts, model.config.num_test_examples
    written, _ = rollouts.write_examples(model.weights, tasks, stages.keys_named(keys, "write"), count)
    adapters = rollouts.adapt_to_examples(model.weights, written, stages.keys_named(keys, "adapter"))
    prompts, answer_keys = rollouts.dialogue.solver_prompts(tasks), stages.keys_named(keys, "answer")
    _, answers = rollouts.respond(model.weights, adapters, prompts, answer_keys, 1, 0.0)
    return lora.split(adapters), [row[0] for row in answers]


def test_answers_are_those_of_the_method(adapting, method):
    asked = [*QUESTIONS, QUESTIONS[0]]
    found = adapting.generate([Request(text, LIMIT) for text in asked])
    assert [completion.text for completion in found] == [*method[1], method[1][0]]
    assert {completion.details["decision"] for completion in found} == {"adapted"}
    assert any(completion.details["before"] != completion.text for completion in found)
    events = {event["number"]: event for event, _ in log.records(adapting.service.log_path)}
    for text, completion in zip(asked, found, strict=True):
        event = events[completion.details["event"]]
        assert (event["problem"], event["answer"]) == (text, completion.text)
    before = len(events)
    again = adapting.generate([Request(text, LIMIT) for text in reversed(asked)])
    assert [completion.text for completion in again] == [completion.text for completion in reversed(found)]
    assert len(list(log.records(adapting.service.log_path))) == before


def test_answers_are_cut_as_requested(adapting, method):
    text = method[1][0]
    assert len(text) == 3
    short, stopped = adapting.generate([Request(QUESTIONS[0], 1), Request(QUESTIONS[0], LIMIT, stops=(text[-1],))])
    assert (short.text, short.finish, short.new_tokens) == (text[0], "length", 1)
    assert stopped.text == text[:2]
    with pytest.raises(UserError, match="answers to questions are greedy: give temperature 0, or questions=false"):
        adapting.generate([Request(QUESTIONS[0], LIMIT, settings=Settings(temperature=0.5))])


def test_scores_are_those_of_merged_weights(adapting, method):
    pairs = [(question, f" {digit} 1") for question in QUESTIONS for digit in (0, 1)]

    def split(prompt, continuation):
        whole, context = encode(adapting.tokenizer, prompt + continuation), encode(adapting.tokenizer, prompt)
        return context, whole[len(context) :]

    found = dict(adapting.score(pairs, split))
    plain, task = adapting.plain, adapting.service.task
    for n, adapter in enumerate(method[0]):
        chosen = (2 * n, 2 * n + 1)
        rows = [split(task.solver_prompt(pairs[i][0]), pairs[i][1]) for i in chosen]
        merged = dataclasses.replace(plain, params=lora.merge(plain.params, adapter)).score(rows)
        np.testing.assert_allclose([found[i].logprob for i in chosen], [one.logprob for one in merged], rtol=1e-4)
        unadapted = [one.logprob for one in plain.score(rows)]
        assert np.abs(np.subtract(unadapted, [one.logprob for one in merged])).max() > 1e-2


@pytest.mark.parametrize(
    "text", ["\ud800 hostile", "4 kabo 3 " * 400, "x" * 100_001], ids=["no Unicode", "long", "longest"]
)
def test_questions_that_cannot_be_posed_are_wrong(adapting, text):
    completion = adapting.generate([Request(text, LIMIT)])[0]
    assert (completion.text, completion.details["decision"]) == ("", "refused")
    assert completion.details["reason"]
    assert dict(adapting.score([(text, " 1")], None)) == {0: (-np.inf, False)}


def test_keys_do_not_depend_on_other_questions(adapting):
    alone = adapting.service.answer_batch([Problem(name_of(QUESTIONS[2]), QUESTIONS[2], "", "")])[0]
    together = adapting.generate([Request(text, LIMIT) for text in QUESTIONS])[2]
    assert alone.text == together.text
