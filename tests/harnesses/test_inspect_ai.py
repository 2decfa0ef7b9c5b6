"""The provider in Inspect: its tasks run, and results agree with our evaluation and with the service."""

import asyncio

import jax
import pytest

pytest.importorskip("inspect_ai")
from inspect_ai import Task, eval
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ContentImage, GenerateConfig, get_model
from inspect_ai.scorer import exact
from inspect_ai.tool import ToolInfo

from mass_jax.audit import log
from mass_jax.errors import UserError
from mass_jax.evaluation import evaluate
from mass_jax.harnesses.questions import name_of
from mass_jax.tasks.base import Problem
from tests.harnesses.settings import BATCH, SEED
from tests.small_models import components

# Of Inspect and the libraries that it imports.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def evaluated():
    """Records of our own evaluation of the base model."""
    made = components()
    problems = made.problems(0)
    job = evaluate.Job(made.config, made.on_every_process().rollouts, made.pretrained(), "base", problems, 0)
    return [
        record
        for column, batch in problems.columns.items()
        for record in evaluate.answer(job, column, batch, jax.random.key(0))()
    ]


@pytest.fixture(scope="module")
def plain():
    model = get_model("mass_jax/tiny", memoize=False, batch_size=BATCH)
    yield model
    model.api.close()


def run(model, records, prompt, directory):
    """Runs a task with the problems of records; returns the response of each and whether it is right, and the log."""
    samples = [Sample(prompt.format(record["problem"]), target=record["answer"], id=record["id"]) for record in records]
    task = Task(samples, scorer=exact(), config=GenerateConfig(max_tokens=4, stop_seqs=["\n"]))
    done = eval(task, model=model, log_dir=str(directory), display="none")[0]
    assert done.status == "success", done.error
    responses = {one.id: (one.output.completion, int(one.scores["exact"].value == "C")) for one in done.samples}
    return responses, done


def test_task_gives_the_results_of_our_evaluation(plain, evaluated, tmp_path):
    responses, done = run(plain, evaluated, "solve {} =", tmp_path)
    assert responses == {record["id"]: (record["response"], record["right"]) for record in evaluated}
    assert done.results.scores[0].metrics["mean"].value == sum(r["right"] for r in evaluated) / len(evaluated)
    usage = done.stats.model_usage[str(plain)]
    assert usage.input_tokens == sum(record["tokens_read"] for record in evaluated)
    assert usage.output_tokens == sum(record["tokens_written"] for record in evaluated)


@pytest.mark.slow
def test_adapting_task_gives_the_results_of_the_service(adapting, policy_file, evaluated, tmp_path):
    events = tmp_path / "events.jsonl"
    arguments = {"policy": str(policy_file), "log": str(events), "batch_size": BATCH, "seed": SEED}
    model = get_model("mass_jax/tiny", memoize=False, adapt=True, **arguments)
    responses, done = run(model, evaluated, "{}", tmp_path)
    model.api.close()
    questions = [Problem(name_of(record["problem"]), record["problem"], "", "") for record in evaluated]
    answers = dict(zip((r["id"] for r in evaluated), adapting.service.answer_batch(questions), strict=True))
    right = {record["id"]: int(answers[record["id"]].text == record["answer"]) for record in evaluated}
    assert responses == {name: (answer.text, right[name]) for name, answer in answers.items()}
    recorded = {record["number"]: record for record, _ in log.records(events)}
    for sample in done.samples:
        told = sample.output.metadata
        assert told["decision"] == "adapted"
        assert recorded[told["event"]]["answer"] == sample.output.completion
        assert recorded[told["event"]]["problem"] == sample.input
        assert told["tokens"]["update"] > 0


def generate(model, messages, **settings):
    tools = settings.pop("tools", [])
    return asyncio.run(model.api.generate(messages, tools, "none", GenerateConfig(**settings)))


def test_settings_of_a_call(plain):
    question = [ChatMessageUser(content="solve 4 kabo 3 =")]
    found = generate(plain, question, max_tokens=2)
    assert (found.stop_reason, found.usage.output_tokens) == ("max_tokens", 2)
    ended = generate(plain, question, max_tokens=8)
    assert (ended.stop_reason, ended.completion[:1]) == ("stop", found.completion[:1])
    digit = found.completion[-1]
    assert generate(plain, question, max_tokens=8, stop_seqs=[digit]).completion == ended.completion.partition(digit)[0]
    drawn = [generate(plain, question, max_tokens=8, temperature=3.0, seed=1).completion for _ in range(6)]
    assert len(set(drawn)) > 1
    again = get_model("mass_jax/tiny", memoize=False, batch_size=BATCH)
    assert [generate(again, question, max_tokens=8, temperature=3.0, seed=1).completion for _ in range(6)] == drawn
    again.api.close()
    assert asyncio.run(plain.api.count_text_tokens("4 kabo 3")) == 3


def test_messages_become_a_prompt(plain):
    turns = [ChatMessageSystem(content="one"), ChatMessageUser(content="two")]
    assert plain.api._text(turns) == "one\n\ntwo\n\n"
    assert plain.api._text(turns[1:]) == "two"
    tokenizer = plain.api._model.tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}answer"
    try:
        assert plain.api._text(turns) == "system one user two answer"
    finally:
        tokenizer.chat_template = None


@pytest.mark.parametrize(
    ("messages", "settings", "message"),
    [
        ([ChatMessageUser(content="1")], {"num_choices": 2}, "'num_choices' is not supported"),
        ([ChatMessageUser(content="1")], {"max_tokens": 64}, "at most 64 tokens were requested; give 1 to 63"),
        ([ChatMessageUser(content="1")], {"logprobs": True}, "'logprobs' is not supported"),
        ([ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AA==")])], {}, "only messages with text"),
        (
            [ChatMessageUser(content="1")],
            {"tools": [ToolInfo(name="bash", description="runs")]},
            "tools are not supported, such as bash",
        ),
    ],
)
def test_unsupported_calls_are_refused(plain, messages, settings, message):
    with pytest.raises(UserError, match=message):
        generate(plain, messages, **settings)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mass_jax/tiny", {"adpat": True}, "mass_jax has no argument 'adpat'; did you mean 'adapt'"),
        ("mass_jax/tiny", {"base_url": "http://localhost"}, "has no effect: the model runs in this process"),
        ("mass_jax//nowhere", {}, "nowhere"),
    ],
)
def test_arguments_that_are_wrong_name_the_fix(name, arguments, message):
    with pytest.raises(PrerequisiteError, match=message):
        get_model(name, memoize=False, **arguments)


@pytest.mark.slow
def test_adapting_model_takes_one_question(adapting, policy_file, tmp_path):
    arguments = {"policy": str(policy_file), "log": str(tmp_path / "events.jsonl"), "batch_size": BATCH}
    model = get_model("mass_jax/tiny", memoize=False, adapt=True, **arguments)
    with pytest.raises(UserError, match="give one user message and no system message"):
        generate(model, [ChatMessageSystem(content="one"), ChatMessageUser(content="two")])
    with pytest.raises(UserError, match="answers to questions are greedy"):
        generate(model, [ChatMessageUser(content="4 kabo 3")], temperature=0.7)
    model.api.close()
