"""The adaptation service on the embedded model: records, guards, refusals and replay."""

import dataclasses
import hashlib
import importlib.resources
import json
import pathlib

import jax
import numpy as np
import pytest

from mass_jax import serving
from mass_jax.audit import log, log_page
from mass_jax.audit.texts import Texts
from mass_jax.errors import UserError
from mass_jax.llama import lora, peft
from mass_jax.runtime import jsonl
from mass_jax.serving import adaptation, identity, loading, replay, stages
from mass_jax.serving.guards import bounds, gates, policy
from mass_jax.tasks.base import Example, Problem, Rejected, Verdict
from mass_jax.training import rollout

BATCH = 4
PROBLEMS = ["4 kabo 3", "2 lepa 7", "5 kabo 5", "9 zzz 1"]
HOSTILE = "<script>alert(1)</script> \u202e \ud800"
POLICY = policy.Policy(gates={**{name: {} for name in gates.SHIPPED}, "answer": {"samples": 4}})


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    path = tmp_path_factory.mktemp("first") / "events.jsonl"
    with serving.load("tiny", policy_file=POLICY, log=path, batch=BATCH) as service:
        return service.setup


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def service_at(path, setup, log_text="full", **changes):
    ledger = policy.Ledger()
    texts = Texts(path, log_text)
    return loading.AdaptationService(
        dataclasses.replace(setup, **changes), log.EventLog(path, ledger.note), texts, ledger, BATCH
    )


def events_of(path):
    return [record for record, _ in log.records(path) if record["kind"] == "adaptation"]


def writes(*texts):
    """A writer of the same examples for every question."""
    return lambda model, tasks, keys_N: [list(texts)] * len(tasks)


def easier(setup, **changes):
    """A policy with changes and without the gates that run the model."""
    kept = {name: {} for name in ("length", "parse", "copy", "duplicates")}
    return dataclasses.replace(setup.policy, gates=kept, **changes)


def without(setup, *names):
    """The model without some of its gates."""
    kept = tuple(gate for gate in setup.model.gates if gate.name not in names)
    return dataclasses.replace(setup.model, gates=kept)


def test_service_logs_every_answer(setup, path):
    with service_at(path, setup) as service:
        answers = service(PROBLEMS * 2)
    assert log.verify(path).notes == []
    events = {event["number"]: event for event in events_of(path)}
    assert len(events) == 8
    for answer in answers:
        event = events[answer.event]
        assert (event["question"], event["problem"], event["answer"]) == (answer.id, answer.problem, answer.text)
        assert event["weights_after"] == event["identity"]["weights"]
        assert all(event["problem"] in event["prompts"][name] for name in ("write", "answer"))
        assert len(event["examples"]) == setup.model.config.num_test_examples
        assert answer.flops > 0
        assert sum(answer.tokens.values()) - answer.tokens["answer"] <= setup.worst_tokens
    assert {answer.decision for answer in answers} <= {"adapted", "too_few", "rolled_back", "stopped"}
    assert sum(answer.decision == "adapted" for answer in answers) >= 4
    assert adaptation.tree_sha256(setup.model.weights) == setup.identity["weights"]


def test_update_equals_the_method(setup):
    model, tasks = setup.model, [Problem(name, name, "", "") for name in PROBLEMS]
    keys = stages.keys_of(0, PROBLEMS)
    synthetic = stages.parse(model, tasks, stages.write(model, tasks, stages.keys_named(keys, "write")))
    found = stages.update(
        model, synthetic, synthetic.kept_NM, stages.keys_named(keys, "adapter"), bounds.UpdateLimits()
    )
    fresh = model.rollouts.loop.init_adapters(stages.keys_named(keys, "adapter"))
    expected = rollout.adapt_jit(model.rollouts.loop, model.weights, fresh, synthetic.kept_NM, synthetic.examples)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found.adapters, expected)
    one = lora.split(found.adapters)[2]
    merged = lora.merge(model.weights.policy, one)["layers"]["mlp"]["up_proj"]["kernel"]
    before = model.weights.policy["layers"]["mlp"]["up_proj"]["kernel"]
    expected_norm = np.linalg.norm(merged - before) / np.linalg.norm(before)
    np.testing.assert_allclose(found.norms["up_proj"][2], expected_norm, rtol=1e-4)
    assert (found.losses_NK[:, 0] > found.losses_NK[:, -1]).all()


def test_replay_is_bit_identical_in_any_batch(setup, path):
    with service_at(path, setup) as service:
        service([*PROBLEMS, "3 kabo 1"])
    made = [event for event in events_of(path) if event["adapter"]]
    assert len(made) >= 3
    for event in made:
        found = replay.replay(setup.model, setup.identity, event, event["problem"])
        assert (found.same, found.differs) == (True, [])
        moved = event | {"batch": {"size": BATCH, "slot": (event["batch"]["slot"] + 1) % BATCH}}
        assert replay.replay(setup.model, setup.identity, moved, event["problem"]).same


@pytest.mark.parametrize("change", ["example", "key", "used"])
def test_replay_detects_an_edited_record(setup, path, change):
    with service_at(path, setup) as service:
        service(["4 kabo 3"] * 1 + PROBLEMS[1:])
    event = next(event for event in events_of(path) if event["adapter"])
    used = next(example for example in event["examples"] if example["used"])
    if change == "example":
        used["solution"] = "9 9"
    elif change == "used":
        used["used"] = False
    else:
        event["keys"]["adapter"] = "0" * 16
    assert not replay.replay(setup.model, setup.identity, event, event["problem"]).same


def test_replay_refuses_other_weights(setup, path):
    with service_at(path, setup) as service:
        service(PROBLEMS)
    event = next(event for event in events_of(path) if event["adapter"])
    with pytest.raises(UserError, match="was made with weights"):
        replay.replay(setup.model, setup.identity | {"weights": "0" * 64}, event, event["problem"])


def test_replay_works_without_logged_texts(setup, path):
    with service_at(path, setup, "hash") as service:
        answers = service(PROBLEMS)
    written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert not any(word in written for word in (b"kabo", b"careful", b"hearsay", b"zzz"))
    event = next(event for event in events_of(path) if event["adapter"])
    texts = Texts(path, "hash")
    asked = next(answer for answer in answers if answer.event == event["number"]).problem
    with pytest.raises(UserError, match="stores no texts"):
        replay.problem_of(event, texts, None)
    with pytest.raises(UserError, match="is not about the problem"):
        replay.problem_of(event, texts, "1 kabo 1")
    assert replay.replay(setup.model, setup.identity, event, replay.problem_of(event, texts, asked)).same


@pytest.mark.parametrize(
    ("texts", "gate"),
    [
        (["careful zani sum ; 2 kabo 4 = 0 6" * 40] * 6, "length"),
        ([HOSTILE] * 6, "parse"),
        (["careful zani sum ; 5 kabo 5 = 1 0"] * 6, "duplicates"),
        ([f"careful zani sum ; {i} kabo 4 = 9 {i}" for i in range(6)], "answer"),
        ([f"careful zani sum ; {i} kabo 4 = 0{i}" for i in range(6)], "calibration"),
    ],
)
def test_gates_reject_injected_examples(setup, path, texts, gate):
    with service_at(path, setup, writer=writes(*texts)) as service:
        answers = service(PROBLEMS[:2] + PROBLEMS[3:] + ["1 lepa 1"])
    for event, answer in zip(events_of(path), answers, strict=True):
        assert not any(example["verdicts"][gate]["passed"] for example in event["examples"])
        assert not any(example["used"] for example in event["examples"])
        assert (answer.decision, answer.text, event["adapter"]) == ("too_few", answer.before, None)
        assert gate in answer.reason


def test_copy_gate_rejects_copies_of_target(setup, path):
    copy = writes(*(f"careful zani sum ; 4 kabo 3 = 0 {i}" for i in range(6)))
    with service_at(path, setup, writer=copy) as service:
        first, *_ = service(PROBLEMS)
    assert (first.decision, "copy 6" in first.reason) == ("too_few", True)


def test_poison_past_the_gates_is_not_released(setup, path):
    poison = writes(*(f"careful zani sum ; {i} kabo 4 = 9 {i}" for i in range(6)))
    model = without(setup, "answer", "calibration")
    with service_at(path, setup, writer=poison, model=model, policy=easier(setup)) as service:
        answers = service(PROBLEMS)
    assert {answer.decision for answer in answers} <= {"rolled_back", "stopped"}
    assert all(answer.text == answer.before for answer in answers)
    assert all(event["after"] is not None and event["adapter"] for event in events_of(path))


@pytest.mark.parametrize("excess", ["refuse", "scale"])
def test_norm_limit_refuses_or_scales_update(setup, path, excess):
    limits = bounds.UpdateLimits(relative_norm=1e-3, excess=excess)
    with service_at(path, setup, policy=dataclasses.replace(setup.policy, limits=limits)) as service:
        answers = service(PROBLEMS)
    made = [event for event in events_of(path) if event["adapter"]]
    assert all(event["norms"]["all"] > 1e-3 for event in made)
    if excess == "refuse":
        assert {answer.decision for answer in answers} <= {"stopped", "too_few"}
        return
    for event in made:
        found = replay.replay(setup.model, setup.identity, event, event["problem"])
        assert found.same
        assert event["factor"] == pytest.approx(1e-3 / event["norms"]["all"])
        assert float(adaptation.relative_norms(setup.model.weights.policy, found.adapter)["all"]) == pytest.approx(
            1e-3, rel=1e-4
        )


def test_within_limits_bounds_inner_steps(setup):
    model, refused = stages.within_limits(setup.model, bounds.UpdateLimits(steps=1))
    assert refused == "inner_steps 2 is over the limit 1"
    model, refused = stages.within_limits(setup.model, bounds.UpdateLimits(steps=1, excess="scale"))
    assert (model.rollouts.loop.num_steps, refused) == (1, "")


def test_budgets_persist_in_the_log(setup, path):
    rule = policy.Permission(questions_per_hour=3)
    limited = dataclasses.replace(setup.policy, rules=(rule,))
    with service_at(path, setup, policy=limited) as service:
        first = service(PROBLEMS)
    with service_at(path, setup, policy=limited) as service:
        second = service(PROBLEMS)
    assert [answer.decision == "refused" for answer in first] == [False, False, False, True]
    assert [answer.decision for answer in second] == ["refused"] * 4
    assert second[0].reason == "policy: 3 questions an hour are granted"
    assert second[0].text == second[0].before == first[0].before
    assert len(events_of(path)) == 8


def test_users_without_a_rule_are_refused(setup, path):
    rules = (policy.Permission(users=("somebody else",)),)
    with service_at(path, setup, policy=dataclasses.replace(setup.policy, rules=rules)) as service:
        assert {answer.decision for answer in service(PROBLEMS)} == {"refused"}


def test_unfit_questions_are_refused_alone(setup, path):
    hostile = ["1 " * 100, HOSTILE]
    with service_at(path, setup) as service:
        answers = service([PROBLEMS[0], *hostile, PROBLEMS[1]])
    assert [answer.text is None for answer in answers] == [False, True, True, False]
    assert "does not fit" in answers[1].reason
    assert "Unicode" in answers[2].reason
    assert log.verify(path).head.number >= 4


def test_plain_answers_give_a_reason(setup):
    service = loading.AdaptationService(setup, None, None, policy.Ledger(), BATCH)
    fits, long = service([PROBLEMS[0], "1 " * 100])
    assert (fits.decision, fits.reason, fits.text is None) == ("plain", "", False)
    assert (long.decision, "does not fit" in long.reason, long.text) == ("plain", True, None)


def test_user_without_a_name_is_a_number(monkeypatch):
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 9)
    assert loading._user() == str(2**31 - 9)


def test_changed_weights_release_no_answer(setup, path):
    other = setup.identity | {"weights": "0" * 64}
    with service_at(path, setup, identity=other) as service, pytest.raises(loading.WeightsChanged):
        service(PROBLEMS)
    assert events_of(path) == []
    assert [record["kind"] for record, _ in log.records(path)][-1] == "fault"


def test_stream_resumes_from_the_log(setup, path):
    with service_at(path, setup) as service:
        first = service(PROBLEMS)
    with service_at(path, setup) as service:
        again = list(service.stream([*PROBLEMS, "8 lepa 8"], resume=True))
    assert [answer.text for answer in again[:4]] == [answer.text for answer in first]
    assert [answer.event for answer in again[:4]] == [answer.event for answer in first]
    assert len(events_of(path)) == 5
    with service_at(path, setup, seed=1) as service:
        list(service.stream(PROBLEMS, resume=True))  # another seed: a different request
    assert len(events_of(path)) == 9
    suite = jax.tree.map(lambda leaf: np.roll(leaf, 1, 0), setup.suite)
    others = ({"task_name": "Sums"}, {"suite": suite}, {"model": without(setup, "answer")})
    for i, other in enumerate(others):
        with service_at(path, setup, **other) as service:
            list(service.stream(PROBLEMS, resume=True))  # another domain, suite or gate likewise
        assert len(events_of(path)) == 13 + 4 * i


class Sums:
    """A user's task that recomputes answers."""

    def solver_prompt(self, problem):
        if "unpaid" in problem:
            raise ValueError(problem)
        return f"solve {problem} ="

    def generator_prompt(self, problem):
        return f"practice {problem} :"

    def scorer_text(self, problem, example):
        return f"{problem} : {example.problem} = {example.solution}"

    def parse_example(self, text, problem):
        if "boom" in text:
            raise RuntimeError(text)
        posed, _, solution = text.partition(" = ")
        return Example(posed, solution) if solution else Rejected("no solution")

    def verify(self, problems, responses):
        return [Verdict.RIGHT if p.answer == r else Verdict.WRONG for p, r in zip(problems, responses, strict=True)]

    def final_answer(self, response):
        return response

    def useful(self, problem, example):
        return None

    def recompute(self, problem):
        x, _, y = problem.split()
        return " ".join(str(int(x) + int(y)))


def test_custom_task_recomputes_answers(setup, path):
    rollouts = setup.model.rollouts.with_task(Sums())
    model = dataclasses.replace(without(setup, "calibration"), rollouts=rollouts)
    examples = writes("1 + 1 = 2", "2 + 1 = 3", "3 + 3 = 6", "2 + 2 = 5", "boom", "no")
    with service_at(path, setup, model=model, writer=examples, task_name="Sums") as service:
        service(["4 + 3", "1 + 7", "2 + 6", "5 + 5"])
    for event in events_of(path):
        passed = [example["verdicts"]["answer"]["passed"] for example in event["examples"]]
        assert passed[:4] == [True, True, True, False]
        assert [example["used"] for example in event["examples"]] == [True, True, True, False, False, False]
        assert event["examples"][4]["rejected"] == "the parser failed (RuntimeError)"
        assert event["task"] == "Sums"


class Talkative:
    """A user's gate whose reason quotes the text."""

    name = "talkative"

    def judge(self, problem, candidates):
        return [gates.GateResult(False, reason=f"posed for {problem}") for _ in candidates]


def test_embedded_suite_uses_the_models_task(setup, path):
    class Strict(Sums):
        def solver_prompt(self, problem):
            assert " + " in problem, "poses sums only"
            return super().solver_prompt(problem)

    with loading.load("tiny", policy_file=policy.Policy(gates={}), log=path, task=Strict(), batch=BATCH) as service:
        jax.tree.map(np.testing.assert_array_equal, service.setup.suite, setup.suite)


def test_reasons_of_custom_code_are_hashed(setup, path):
    rollouts = setup.model.rollouts.with_task(Sums())
    model = dataclasses.replace(setup.model, rollouts=rollouts, gates=(Talkative(),))
    with service_at(path, setup, "hash", model=model, writer=writes(*["unheard = of"] * 6)) as service:
        posed, unfit, *_ = service(["4 + 3", "unpaid bills", "2 + 6", "5 + 5"])
    assert unfit.reason == "the task cannot pose the problem (ValueError)"
    assert (posed.decision, "talkative 6" in posed.reason) == ("too_few", True)
    assert not any(word in path.read_bytes() for word in (b"posed for", b"unpaid", b"unheard"))
    log_page.write_page(path, path.with_name("page.html"))


def test_failing_task_affects_one_text(setup, path):
    rollouts = setup.model.rollouts.with_task(Sums())
    model = dataclasses.replace(without(setup, "calibration"), rollouts=rollouts)
    examples = writes("1 + 1 = 2", "2 + 1 = 3", "3 + 3 = 6", "two = 2", "2 = 2", "1 + x = 3")
    with service_at(path, setup, model=model, writer=examples) as service:
        service(["4 + 3", "1 + 7", "2 + 6", "5 + 5"])
    for event in events_of(path):
        assert [example["used"] for example in event["examples"]] == [True] * 3 + [False] * 3


def test_real_examples_are_mixed_in_and_judged(setup, path):
    model = dataclasses.replace(setup.model, num_real=2)
    with service_at(path, setup, model=model) as service:
        service(PROBLEMS)
    for event in events_of(path):
        assert [example["source"] for example in event["examples"]] == ["written"] * 4 + ["real"] * 2
        real = [Example(example["problem"], example["solution"]) for example in event["examples"][4:]]
        assert set(real) <= set(setup.model.real)
        assert all(example["verdicts"] for example in event["examples"])
    event = next(event for event in events_of(path) if event["adapter"])
    assert replay.replay(setup.model, setup.identity, event, event["problem"]).same


def test_real_examples_alone_do_not_suffice(setup, path):
    model = dataclasses.replace(without(setup, "calibration", "copy", "duplicates", "answer"), num_real=3)
    with service_at(path, setup, model=model, policy=easier(setup), writer=writes("", "", "")) as service:
        answers = service(PROBLEMS)
    assert {answer.decision for answer in answers} == {"too_few"}
    assert answers[0].reason.startswith("0 of 3 examples passed")
    for event in events_of(path):
        passed = [all(verdict["passed"] for verdict in example["verdicts"].values()) for example in event["examples"]]
        assert passed == [False] * 3 + [True] * 3
        assert not any(example["used"] for example in event["examples"])


@pytest.mark.parametrize(
    ("asked", "num_real", "message"),
    [
        (policy.Policy(), 0, r"needs real examples, .*; pass more with --real=FILE, in Python real="),
        (
            policy.Policy(gates={}, real_share=0.5, min_examples=4),
            9,
            "min_examples=4 of the policy exceeds the 3 synthetic",
        ),
    ],
)
def test_make_model_refuses_unsatisfiable_policy(setup, asked, num_real, message):
    model = setup.model
    with pytest.raises(UserError, match=message):
        loading.make_model(model.config, model.rollouts, model.weights, asked, model.real[:num_real])


def test_suite_score_equals_greedy_decoding(setup):
    suite = pathlib.Path(str(importlib.resources.files("mass_jax") / "data/tiny/regression.jsonl"))
    rows = [row.value for row in jsonl.read(suite)]
    for start in range(0, 8, BATCH):
        tasks = [Problem(str(i), row["problem"], "", "") for i, row in enumerate(rows[start : start + BATCH])]
        keys = stages.keys_named(stages.keys_of(0, [task.id for task in tasks]), "answer")
        spoken = stages.answer(setup.model, None, tasks, keys)
        right = [text == row["solution"] for text, row in zip(spoken, rows[start:], strict=False)]
        assert right == np.asarray(setup.suite_before.right)[0, start : start + BATCH].tolist()


def test_exported_adapter_equals_replayed_adapter(setup, path, tmp_path):
    with service_at(path, setup) as service:
        service(PROBLEMS)
    event = next(event for event in events_of(path) if event["adapter"])
    adapter = replay.replay(setup.model, setup.identity, event, event["problem"]).adapter
    whole = setup.model.solver.adapter(setup.model.weights, adapter)
    peft.save(tmp_path / "adapter", whole)
    loaded = peft.load(tmp_path / "adapter", setup.model.solver.config)
    jax.tree.map(np.testing.assert_array_equal, loaded, whole)


def test_page_escapes_hostile_questions(setup, path, tmp_path):
    with service_at(path, setup, writer=writes(*[HOSTILE] * 6)) as service:
        service([*PROBLEMS[:3], "</code><img src=x onerror=alert(1)>"])
    assert log_page.write_page(path, tmp_path / "page.html") == 4
    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o600
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    assert "\\u202e" in text
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        ("4 kabo 3", "is a string"),
        ([3], "no string"),
        ([{"id": "a"}], "no string"),
        ([{"id": 0, "problem": "x"}] * 2, "repeats the id"),
        ([{"id": 1e22, "problem": "x"}], "question 1 has the id '1e.22'; give a string or an integer"),
        (["x" * 100_001], "the limit is 100000"),
    ],
)
def test_as_questions_names_malformed_question(problems, message):
    with pytest.raises(UserError, match=message):
        loading.as_questions(problems)


def test_as_questions_numbers_null_ids():
    questions = loading.as_questions([{"id": None, "problem": "x"}, {"id": "b", "problem": "x"}, {"problem": "x"}])
    assert [question.id for question in questions] == ["0", "b", "2"]


def test_load_requires_policy_and_log():
    with pytest.raises(UserError, match="--policy is missing"):
        loading.load("tiny")
    with pytest.raises(UserError, match="--log is missing"):
        loading.load("tiny", policy_file=POLICY)


def test_records_are_plain_json(setup, path):
    with service_at(path, setup) as service:
        service(PROBLEMS)
    kinds = [json.loads(line)["kind"] for line in path.read_text(encoding="ascii").splitlines()]
    assert kinds == ["run", "grant"] + ["adaptation"] * 4


def test_serving_exposes_its_public_names(setup, path):
    assert set(serving.__all__) == set(dir(serving))
    assert serving.load is loading.load
    assert serving.Policy is policy.Policy
    assert serving.guards.gates is gates
    assert serving.replay is replay
    with serving.load("tiny", policy_file=serving.Policy(), log=path, adapt=False) as service:
        assert isinstance(service, serving.AdaptationService)
        assert isinstance(service(PROBLEMS)[0], serving.Answer)


def test_tokenizer_hash_covers_present_files(tmp_path):
    directory = pathlib.Path(str(importlib.resources.files("mass_jax") / "data/tiny"))
    files = ("tokenizer.json", "tokenizer_config.json")
    expected = hashlib.sha256(b"".join(name.encode() + b"\0" + (directory / name).read_bytes() for name in files))
    assert identity.tokenizer_sha256(directory) == expected.hexdigest()
    hashes = {expected.hexdigest()}
    for name in identity.TOKENIZER_FILES:
        (tmp_path / name).write_bytes((directory / name).read_bytes() if name in files else b"{}")
        hashes.add(identity.tokenizer_sha256(tmp_path))
    assert len(hashes) == 4
