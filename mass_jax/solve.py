"""Answers better by adapting to each question, and lets no answer out before the log holds what was done for it.

    solver = mass_jax.solve.load("runs/tiny")
    answers = solver(["4 kabo 3"])

A question is answered as it is, practice is written for it, gates judge the practice, an adapter is trained on what
passed, bounds and a regression suite judge the adapter; its answer is released if all held, the plain one if not. The
stages are in `mass_jax.audit`; this is the shell that grants, records and releases.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import pwd
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from mass_jax import runtime
from mass_jax.audit import adaptation, events, gates, identity, policy, regression, source, stages
from mass_jax.audit.batch import Setup, Writer, solve_batch
from mass_jax.audit.chain import canonical
from mass_jax.audit.log import EventLog, records
from mass_jax.audit.texts import Mode, Texts
from mass_jax.errors import UserError
from mass_jax.sampling.engine import bucket
from mass_jax.tasks.problem import Example, Problem, Task

Question = str | Mapping[str, Any] | Problem


class WeightsChanged(RuntimeError):
    """The base weights are not what they were; no answer of that batch was released."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a question gets.

    Args:
        id, problem: the question.
        text: the answer; None if the question could not be put to the model.
        before: answer of the unadapted model.
        decision: one of `audit.events.DECISIONS`, or "plain" where nothing was to be adapted.
        reason: why it is the unadapted model's; "" if it is not.
        event: number of its record in the log.
        tokens, flops, seconds: what it took; tokens and seconds by phase.
    """

    id: str
    problem: str
    text: str | None
    before: str | None
    decision: str
    reason: str
    event: int | None
    tokens: Mapping[str, int]
    flops: int
    seconds: Mapping[str, float]


class Solver(contextlib.AbstractContextManager):
    """Answers questions; made by `load`.

    Args:
        setup: model, policy and what else stays the same.
        log: the event log, opened; None answers plainly, without adapting.
        texts: how the log keeps texts.
        ledger: what the log's users were granted.
        batch: most questions at a time.
    """

    def __init__(self, setup: Setup, log: EventLog | None, texts: Texts | None, ledger: policy.Ledger, batch: int):
        self.setup, self.batch = setup, batch
        self._log, self._texts, self._ledger, self._run = log, texts, ledger, ""
        self._domain: dict[str, Any] = {}
        if log is not None and texts is not None:
            self._domain = _domain(setup, texts)
            self._run = log.append(_run_record(setup, texts.mode) | self._domain)[0]["hash"]

    def __exit__(self, *_: object) -> None:
        self.setup.model.parts.close()
        if self._log is not None:
            self._log.__exit__()

    def __call__(self, problems: Sequence[Question]) -> list[Answer]:
        """Answers all questions, in order.

        Args:
            problems: texts, `Problem`s, or objects with "problem" and perhaps "id". The id decides what is drawn for a
                question; where there is none it is the place in the list.
        """
        return list(self.stream(problems))

    def stream(
        self, problems: Sequence[Question], stop: runtime.Stop | None = None, resume: bool = False
    ) -> Iterator[Answer]:
        """Answers as they come, batch by batch; the event of each is on the disk before it.

        Args:
            problems: as for a call.
            stop: polled between batches.
            resume: whether the log answers the questions that it holds an answer to, given under the same settings.
        """
        questions = as_questions(problems)
        recorded = self._recorded(questions) if resume else {}
        size = min(self.batch, bucket(max(len(questions), 1)))
        for start in range(0, len(questions), size):
            if stop is not None:
                stop.poll()
            chunk = questions[start : start + size]
            fresh = {answer.id: answer for answer in self._answer([q for q in chunk if q.id not in recorded], size)}
            yield from (recorded.get(question.id) or fresh[question.id] for question in chunk)

    def _answer(self, questions: Sequence[Problem], size: int) -> list[Answer]:
        """Answers of one batch, with their events on the disk."""
        if not questions:
            return []
        outcomes, fit = [], []
        for question in questions:
            if reason := stages.unfit(self.setup.model.parts, question.problem):
                keys = stages.keys_of(self.setup.seed, [question.id])[0]
                outcomes.append(events.Outcome(question.id, question.problem, 0, 0, keys, "refused", reason))
            else:
                fit.append(question)
        if fit:
            outcomes += solve_batch(self.setup, fit, size, self._refusals(len(fit)))
        if self._log is None:
            return [_answer_of(_plain(outcome), None) for outcome in outcomes]
        return self._record(self._log, outcomes)

    def _record(self, log: EventLog, outcomes: Sequence[events.Outcome]) -> list[Answer]:
        """Puts what was done into the log, after a look at the base weights."""
        weights = adaptation.tree_sha256(self.setup.model.weights)
        if weights != self.setup.identity["weights"]:
            log.append(
                {"kind": "fault", "time": events.now(), "reason": "the base weights changed", "weights": weights}
            )
            raise WeightsChanged(
                f"base weights {self.setup.identity['weights']} became {weights}; nothing was released"
            )
        sealed = log.append(*(self._event(outcome, weights) for outcome in outcomes))
        return [_answer_of(outcome, record["number"]) for outcome, record in zip(outcomes, sealed, strict=True)]

    def _event(self, outcome: events.Outcome, weights_after: str) -> dict[str, Any]:
        assert self._texts is not None
        context = {
            "run": self._run,
            "user": self.setup.user,
            "task": self.setup.task_name,
            "request": self._request(outcome.name, outcome.problem),
            "weights_after": weights_after,
        }
        return events.event(outcome, self._texts, self.setup.identity, context)

    def _refusals(self, asked: int) -> list[str]:
        """Why each question may not be adapted to; "" for those that may, whose grant is then in the log."""
        setup = self.setup
        if self._log is None or setup.refused:
            return [setup.refused or "not asked for"] * asked
        permits: list[policy.Permit] = []

        def grant() -> list[dict[str, Any]]:
            each, moment = setup.worst_tokens, time.time()
            permits.append(policy.permit(setup.policy, self._ledger, setup.user, setup.task_name, asked, each, moment))
            granted = permits[-1].granted
            record = {"kind": "grant", "at": moment, "user": setup.user, "task": setup.task_name, "run": self._run}
            return [record | {"questions": granted, "tokens": granted * each}] if granted else []

        self._log.transact(grant)
        granted, reason = permits[-1]
        return [""] * granted + [reason] * (asked - granted)

    def _request(self, name: str, problem: str) -> str:
        """One name for a question put to this model under these settings; it tells nothing of the text."""
        assert self._texts is not None
        same = {key: self.setup.identity[key] for key in ("weights", "tokenizer", "settings", "policy")}
        asked = {"id": name, "problem": problem, "seed": self.setup.seed, **self._domain}
        return self._texts.digest(canonical(asked | same).decode())

    def _recorded(self, questions: Sequence[Problem]) -> dict[str, Answer]:
        """Answers that the log holds, by the question's id; a log without texts holds none."""
        if self._log is None:
            return {}
        wanted = {self._request(question.id, question.problem): question for question in questions}
        found = {}
        for record, _ in records(self._log.path):
            question = wanted.get(record.get("request", ""))
            if question is not None and not isinstance(record["problem"], dict):
                found[question.id] = _answer_of_record(record)
        return found


def load(
    model: str,
    *,
    run: str | None = None,
    train_seed: int | None = None,
    policy_file: str | pathlib.Path | policy.Policy | None = None,
    log: str | pathlib.Path | None = None,
    log_text: Mode = "full",
    seed: int = 0,
    batch: int = 16,
    suite: str | pathlib.Path | None = None,
    real: Sequence[Example] | None = None,
    task: Task | None = None,
    more_gates: Sequence[gates.Gate] = (),
    writer: Writer = stages.write,
    adapt: bool = True,
) -> Solver:
    """A solver of questions.

    Args:
        model: a workdir of `experiments.train`, "tiny", or a directory or hub id with Hugging Face files.
        run, train_seed: which training run of the workdir, see `audit.source.load`.
        policy_file: the operator's policy, or its file; WORKDIR/policy.json. There is none by default.
        log: the event log; WORKDIR/audit/events.jsonl.
        log_text: "full", or "hash" to keep texts out of the log.
        seed: of everything drawn.
        batch: most questions at a time.
        suite: JSONL file of the regression suite; None takes the embedded one, posed by the model's own task.
        real: examples known to be real; None takes training problems of the model's own task.
        task: another domain: the methods of `tasks.problem.Task`, and perhaps that of `gates.Recomputes`; None is the
            model's own.
        more_gates: gates beside the policy's.
        writer: what writes the practice.
        adapt: False answers plainly, without policy and log.

    Raises:
        UserError: something is missing or contradictory, in one line.
        audit.chain.Broken: the log does not hold.
    """
    permitted = policy.Policy(gates={}) if not adapt else _policy(model, policy_file)
    found = source.load(model, run, train_seed)
    parts, refused = stages.within_limits(found.parts, permitted.limits)
    if real is None and task is None:
        problems = parts.problems(parts.config.seeds[0]).train[: stages.REAL_EXAMPLES]
        real = [Example(problem.problem, problem.solution) for problem in problems]
    if task is not None:
        parts = dataclasses.replace(parts, dialogue=dataclasses.replace(parts.dialogue, task=task))
    chosen = make_model(parts, found.weights, permitted, real or (), more_gates)
    # the model's own suite has problems of its own task
    suite_file, poser = (None, found.parts) if suite is None else (pathlib.Path(suite), parts)
    pairs = regression.read_suite(suite_file, parts.directory, poser.dialogue.task)
    texts = regression.encode_suite(parts.dialogue, pairs)
    setup = Setup(
        model=chosen,
        policy=permitted,
        refused=refused,
        suite=texts,
        suite_before=jax.device_get(adaptation.score_suite(parts.solver, found.weights, None, texts)),
        identity=identity.identity(found.weights, parts.directory, parts.config.to_json(), permitted.to_json()),
        label=found.label,
        user=_user(),
        task_name=parts.config.task if task is None else type(task).__name__,
        seed=seed,
        writer=writer,
    )
    ledger = policy.Ledger()
    if not adapt:
        return Solver(setup, None, None, ledger, batch)
    path = _beside(model, log, "audit/events.jsonl", "--log")
    return Solver(setup, EventLog(path, ledger.note), Texts(path, log_text), ledger, batch)


def make_model(
    parts: Any, weights: Any, permitted: policy.Policy, real: Sequence[Example], more: Sequence[gates.Gate] = ()
) -> stages.Model:
    """The model behind the gates of a policy.

    Raises:
        UserError: real examples are asked for, and there are none or too few.
    """
    num_real = round(permitted.real_share * parts.config.num_test_examples)
    if num_real >= parts.config.num_test_examples:
        raise UserError(f"real_share={permitted.real_share} leaves nothing of num_test_examples to write; lower it")
    if len(real) < max(num_real, "calibration" in permitted.gates):
        raise UserError(f"the policy asks for real examples, and there are {len(real)}; give some with real=")
    model = stages.Model(parts, weights, (), real, num_real)
    made = []
    for name, settings in permitted.gates.items():
        known = {
            "calibration": lambda: {"real_nll": stages.real_nll(model)},
            "length": lambda: {"max_tokens": parts.config.max_example_tokens},
        }.get(name, dict)()
        made.append(gates.SHIPPED[name](**{**known, **settings}))
    return dataclasses.replace(model, gates=(*made, *more))


def as_questions(problems: Sequence[Question]) -> list[Problem]:
    """Questions with ids.

    Raises:
        UserError: one has no problem or one too long, or an id stands twice.

    >>> [question.id for question in as_questions(["1 + 1", {"problem": "2 + 2", "id": "b"}])]
    ['0', 'b']
    """
    if isinstance(problems, str):
        raise UserError(f"problems={problems!r} is one text; give a list")
    found: dict[str, Problem] = {}
    for i, given in enumerate(problems):
        data = {"problem": given} if isinstance(given, str) else given
        data = {"problem": data.problem, "id": data.id} if isinstance(data, Problem) else data
        if not isinstance(data, Mapping) or not isinstance(data.get("problem"), str):
            raise UserError(f'question {i + 1} has no text "problem": {str(given)[:60]!r}')
        name = str(data.get("id", i))
        if name in found:
            raise UserError(f"question {i + 1} has the id {name!r} of another; give each its own, or none")
        if len(data["problem"]) > stages.MOST_CHARS:
            raise UserError(f"question {i + 1} has {len(data['problem'])} characters; the most is {stages.MOST_CHARS}")
        found[name] = Problem(name, data["problem"], "", "")
    return list(found.values())


def _policy(model: str, given: str | pathlib.Path | policy.Policy | None) -> policy.Policy:
    if isinstance(given, policy.Policy):
        return given
    return policy.load(_beside(model, given, "policy.json", "--policy"))


def _beside(model: str, given: str | pathlib.Path | None, name: str, flag: str) -> pathlib.Path:
    """The path that was given, or the usual one in a workdir."""
    if given is not None:
        return pathlib.Path(given)
    if not (pathlib.Path(model) / "config.json").is_file() or (pathlib.Path(model) / "tokenizer.json").is_file():
        raise UserError(f"{flag} is missing; {model!r} is no workdir that could hold {name}")
    return pathlib.Path(model) / name


def _run_record(setup: Setup, log_text: Mode) -> dict[str, Any]:
    """What one process works with, for all of its events."""
    return {
        "kind": "run",
        "time": events.now(),
        "model": setup.label,
        "user": setup.user,
        "seed": setup.seed,
        "log_text": log_text,
        "identity": dict(setup.identity),
        "platform": identity.platform_of(),
        "settings": json.loads(setup.model.parts.config.to_json()),
        "policy": json.loads(setup.policy.to_json()),
    }


def _domain(setup: Setup, texts: Texts) -> dict[str, Any]:
    """What decides an answer beside the settings and the policy: the task, and what its updates are judged by."""
    real = canonical({"real": [dataclasses.astuple(example) for example in setup.model.real]})
    return {
        "task": setup.task_name,
        "gates": [gate.name for gate in setup.model.gates],
        "suite": adaptation.tree_sha256(setup.suite),
        "real": texts.digest(real.decode()),
    }


def _user() -> str:
    """Who asks: the name of the account, or its number where it has none, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _plain(outcome: events.Outcome) -> events.Outcome:
    """An outcome where nothing was to be adapted; the reason stays where even the plain model has no answer."""
    return dataclasses.replace(outcome, decision="plain", reason="" if outcome.before is not None else outcome.reason)


def _answer_of(outcome: events.Outcome, number: int | None) -> Answer:
    return Answer(
        outcome.name,
        outcome.problem,
        outcome.answer,
        outcome.before,
        outcome.decision,
        outcome.reason,
        number,
        outcome.tokens,
        outcome.flops,
        outcome.seconds,
    )


def _answer_of_record(record: Mapping[str, Any]) -> Answer:
    fields = ("question", "problem", "answer", "before", "decision", "reason", "number", "tokens", "flops", "seconds")
    return Answer(*(record[field] for field in fields))
