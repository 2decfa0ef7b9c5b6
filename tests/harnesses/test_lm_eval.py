"""The model class in lm-evaluation-harness: its tasks run, and results agree with our evaluation and with `hf`."""

import json

import jax
import numpy as np
import pytest

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance  # noqa: E402 (after the check that it is installed)
from lm_eval.tasks import TaskManager  # noqa: E402

from mass_jax.errors import UserError  # noqa: E402
from mass_jax.evaluation import evaluate  # noqa: E402
from mass_jax.harnesses.lm_eval.model import MassJaxLM  # noqa: E402
from mass_jax.harnesses.questions import name_of  # noqa: E402
from mass_jax.tasks.base import Problem  # noqa: E402
from tests.harnesses.settings import BATCH, SEED  # noqa: E402
from tests.small_models import components  # noqa: E402

# Of lm_eval and the libraries that it imports.
pytestmark = pytest.mark.filterwarnings("ignore")

PAIRS = [
    ("solve 4 kabo 3 =", " 1 2"),
    ("solve 4 kabo 3 = ", "0"),
    ("", "solve 2 lepa 7"),
    ("solve 9 kisu 1 = 3 4 solve 2 lepa 7 =", " 4 1 </s>"),
    ("<s> solve 4 kabo 3 =", " 7"),
]
LONG = "solve 4 kabo 3 = 1 2 " * 20  # longer than the model's 64 positions


def instances(kind, arguments):
    return [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]


@pytest.fixture(scope="module")
def plain():
    return MassJaxLM(pretrained="tiny", batch_size=4)


def test_log_likelihoods_are_those_of_hf(random_model):
    ours = MassJaxLM(pretrained=str(random_model), batch_size=2)
    theirs = lm_eval.api.registry.get_model("hf")(
        pretrained=str(random_model), batch_size=2, device="cpu", dtype="float32"
    )
    assert theirs.max_length == ours.max_length
    asked = instances("loglikelihood", [*PAIRS, (LONG, " 1 2")])
    expected, found = theirs.loglikelihood(asked), ours.loglikelihood(asked)
    np.testing.assert_allclose([one[0] for one in found], [one[0] for one in expected], atol=1e-4)
    assert [one[1] for one in found] == [bool(one[1]) for one in expected]
    rolling = instances("loglikelihood_rolling", [("solve 4 kabo 3 = 1 2",), (LONG,)])
    expected, found = theirs.loglikelihood_rolling(rolling), ours.loglikelihood_rolling(rolling)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    settings = {"until": ["kabo"], "max_gen_toks": 12, "do_sample": False}
    # `hf` adds a second bos token to "<s> ..." in a batch that starts with another text.
    texts = instances("generate_until", [(PAIRS[i][0], settings) for i in (0, 3)])
    assert ours.generate_until(texts) == theirs.generate_until(texts)
    first = ours.generate_until(instances("generate_until", [(PAIRS[0][0], {"max_gen_toks": 1})]))[0]
    assert ours.loglikelihood(instances("loglikelihood", [(PAIRS[0][0], f" {first}")]))[0][1]


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


@pytest.fixture
def task(tmp_path, evaluated):
    """Makes a task with these problems whose prompt is the given template."""

    def make(prompt):
        (tmp_path / "problems.jsonl").write_text("".join(json.dumps(record) + "\n" for record in evaluated))
        return {
            "task": "testbed",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(tmp_path / "problems.jsonl")}},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": prompt,
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        }

    return make


def run(model, task):
    """Runs a task; returns its accuracy and the response of each problem by id, with whether it is right."""
    found = lm_eval.simple_evaluate(
        model, tasks=[task], task_manager=TaskManager(include_defaults=False), log_samples=True, bootstrap_iters=0
    )
    samples = {s["doc"]["id"]: (s["filtered_resps"][0], int(s["exact_match"])) for s in found["samples"]["testbed"]}
    return found["results"]["testbed"]["exact_match,none"], samples, found["config"]


def test_task_gives_the_results_of_our_evaluation(plain, evaluated, task):
    accuracy, samples, config = run(plain, task("solve {{problem}} ="))
    assert samples == {record["id"]: (record["response"], record["right"]) for record in evaluated}
    assert accuracy == np.mean([record["right"] for record in evaluated])
    assert config["model_label"] == "tiny, float32"


@pytest.mark.slow
def test_adapting_task_gives_the_results_of_the_service(adapting, policy_file, evaluated, task, tmp_path):
    settings = {"policy": policy_file, "log": tmp_path / "events.jsonl", "batch_size": BATCH, "seed": SEED}
    adapted = MassJaxLM(pretrained="tiny", adapt=True, **settings)
    accuracy, samples, config = run(adapted, task("{{problem}}"))
    questions = [Problem(name_of(record["problem"]), record["problem"], "", "") for record in evaluated]
    answers = adapting.service.answer_batch(questions)
    right = [int(answer.text == record["answer"]) for answer, record in zip(answers, evaluated, strict=True)]
    expected = zip(evaluated, answers, right, strict=True)
    assert samples == {record["id"]: (answer.text, one) for record, answer, one in expected}
    assert accuracy == np.mean(right)
    assert config["decisions"] == {"adapted": len(evaluated)}
    adapted.model.close()
    assert config["identity"] == dict(adapting.service.identity)


def test_model_runs_by_name(random_model):
    found = lm_eval.api.registry.get_model("mass_jax").create_from_arg_string(
        f"pretrained={random_model},max_length=32,seed=1",
        {"batch_size": "2", "max_batch_size": None, "device": "cuda:0"},
    )
    assert (found.max_length, found.options.batch_size, found.options.seed) == (32, 2, 1)
    assert found.tokenizer_name == str(random_model).replace("/", "__")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lm: MassJaxLM(pretrained="tiny", lora=3), "mass_jax has no argument 'lora'"),
        (lambda lm: lm.apply_chat_template([{"role": "user", "content": "1"}]), "has no chat template"),
        (lambda lm: lm.generate_until(instances("generate_until", [("1", {"beams": 2})])), "'beams' is not supported"),
    ],
)
def test_errors_name_the_fix(plain, call, message):
    with pytest.raises(UserError, match=message):
        call(plain)


def test_conversations_are_rendered_by_the_template(plain):
    template = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}answer"
    plain.tokenizer.chat_template = template
    try:
        turns = [{"role": "system", "content": "one"}, {"role": "user", "content": "two"}]
        assert plain.apply_chat_template(turns) == "system one user two answer"
        assert plain.chat_template(True) == template
        with pytest.raises(UserError, match="leave out gen_prefix"):
            plain.apply_chat_template(turns, add_generation_prompt=False)
    finally:
        plain.tokenizer.chat_template = None
