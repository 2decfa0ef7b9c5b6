"""The adaptation service: checks permission, adapts, records the event, and only then releases the answer."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mass_jax import runtime
from mass_jax.audit.chain import canonical, sha256
from mass_jax.audit.log import EventLog, records
from mass_jax.audit.texts import Mode, Texts
from mass_jax.sampling.engine import bucket
from mass_jax.serving import adaptation, events, identity, stages
from mass_jax.serving.batch import Report, Setup, silent, solve_batch
from mass_jax.serving.guards import policy
from mass_jax.serving.questions import Question, as_questions
from mass_jax.tasks.base import Problem, Problems, Task


class WeightsChanged(RuntimeError):
    """The base weights changed during a batch; none of its answers were released."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes:
        id: the question's id.
        problem: the question's text.
        text: the answer; None if the question could not be put to the model.
        before: answer of the unadapted model.
        decision: one of `events.DECISIONS`, or "plain" with `adapt=False`.
        reason: why the unadapted model's answer was released; "" if the adapted one was.
        event: number of its record in the log.
        tokens: tokens by phase.
        flops: floating-point operations.
        seconds: seconds by phase.
        request: digest of the question and all settings that decide its answer.
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
    request: str


class AdaptationService(contextlib.AbstractContextManager):
    """Answers questions by adapting to each of them; created by `mass_jax.serving.load`.

    Args:
        setup: model, policy and other state shared by all batches.
        log: the opened event log; None answers without adapting.
        texts: how the log stores texts.
        ledger: permissions granted to the log's users.
        batch: largest number of questions per batch.
    """

    def __init__(self, setup: Setup, log: EventLog | None, texts: Texts | None, ledger: policy.Ledger, batch: int):
        self.setup, self.batch = setup, batch
        self._log, self._texts, self._ledger, self._run = log, texts, ledger, ""
        self._domain = _domain(setup, self._digest)
        if log is not None and texts is not None:
            self._run = log.append(_run_record(setup, texts.mode) | self._domain)[0]["hash"]

    def __exit__(self, *_: object) -> None:
        self.setup.chosen.close()
        if self._log is not None:
            self._log.__exit__()

    @property
    def task(self) -> Task:
        """The task by which questions are posed and answers are read."""
        return self.setup.model.dialogue.task

    @property
    def identity(self) -> Mapping[str, str]:
        """Hashes that every record carries; see `serving.identity`."""
        return self.setup.identity

    @property
    def log_path(self) -> pathlib.Path | None:
        """Path of the event log; None without one."""
        return None if self._log is None else self._log.path

    def problems(self, seed: int) -> Problems:
        """Returns the training and evaluation problems of the model's own task for a meta-training seed."""
        return self.setup.chosen.problems(seed)

    def weights_sha256(self) -> str:
        """Returns the SHA-256 of the base weights as they are now; it differs from `identity` if they changed."""
        return adaptation.tree_sha256(self.setup.model.weights)

    def __call__(self, problems: Sequence[Question]) -> list[Answer]:
        """Answers all questions, in order.

        Args:
            problems: strings, `Problem`s, or mappings with "problem" and optionally "id". The id seeds the question's
                random numbers and defaults to the index in the list.
        """
        return list(self.stream(problems))

    def stream(
        self,
        problems: Sequence[Question],
        stop: runtime.Stop | None = None,
        resume: bool = False,
        pad: bool = False,
    ) -> Iterator[Answer]:
        """Yields answers batch by batch; the event of each answer is on disk before it is yielded.

        Args:
            problems: as for a call.
            stop: polled between batches.
            resume: return answers that the log already holds for the same question and settings.
            pad: pad every batch to `batch` rows, as `answer_batch` does, so that all calls share compiled programs.
        """
        questions = as_questions(problems)
        recorded = self._recorded(questions) if resume else {}
        size = self.batch if pad else min(self.batch, bucket(max(len(questions), 1)))
        for start in range(0, len(questions), size):
            if stop is not None:
                stop.poll()
            chunk = questions[start : start + size]
            fresh = {answer.id: answer for answer in self._answer([q for q in chunk if q.id not in recorded], size)}
            yield from (recorded.get(question.id) or fresh[question.id] for question in chunk)

    def answer_batch(self, questions: Sequence[Problem], report: Report = silent) -> list[Answer]:
        """Answers at most `batch` questions; their events are on disk when this returns.

        The batch is padded to `batch` rows, so that an answer does not depend on how many questions are waiting.

        Args:
            questions: questions with distinct ids.
            report: called with the name of each phase that begins, one of `batch.PHASES`.

        Returns:
            The answers, in order.
        """
        answers = {answer.id: answer for answer in self._answer(questions, self.batch, report)}
        return [answers[question.id] for question in questions]

    def record_unanswered(self, questions: Sequence[Problem], reason: str) -> None:
        """Records questions that were accepted and are not answered."""
        if self._log is None or self._texts is None:
            return
        shared = {"kind": "unanswered", "time": events.now(), "run": self._run, "user": self.setup.user}
        shared |= {"task": self.setup.task_name, "reason": reason}
        self._log.append(
            *(
                shared | {"question": question.id, "problem": self._texts.keep(question.problem)}
                for question in questions
            )
        )

    def _answer(self, questions: Sequence[Problem], size: int, report: Report = silent) -> list[Answer]:
        """Answers one batch and writes its events to disk."""
        if not questions:
            return []
        outcomes, fit = [], []
        for question in questions:
            if reason := stages.unfit(self.setup.model.dialogue, question.problem):
                keys = stages.keys_of(self.setup.seed, [question.id])[0]
                outcomes.append(events.Outcome(question.id, question.problem, 0, 0, keys, "refused", reason))
            else:
                fit.append(question)
        if fit:
            outcomes += solve_batch(self.setup, fit, size, self._refusals(len(fit)), report)
        if self._log is None:
            return [self._answer_of(_plain(outcome), None) for outcome in outcomes]
        return self._record(self._log, outcomes)

    def _record(self, log: EventLog, outcomes: Sequence[events.Outcome]) -> list[Answer]:
        """Appends the outcomes to the log after checking that the base weights are unchanged."""
        weights = self.weights_sha256()
        if weights != self.identity["weights"]:
            log.append(
                {"kind": "fault", "time": events.now(), "reason": "the base weights changed", "weights": weights}
            )
            raise WeightsChanged(f"base weights {self.identity['weights']} became {weights}; nothing was released")
        sealed = log.append(*(self._event(outcome, weights) for outcome in outcomes))
        return [self._answer_of(outcome, record["number"]) for outcome, record in zip(outcomes, sealed, strict=True)]

    def _answer_of(self, outcome: events.Outcome, number: int | None) -> Answer:
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
            self.request(outcome.name, outcome.problem),
        )

    def _event(self, outcome: events.Outcome, weights_after: str) -> dict[str, Any]:
        assert self._texts is not None
        context = {
            "run": self._run,
            "user": self.setup.user,
            "task": self.setup.task_name,
            "request": self.request(outcome.name, outcome.problem),
            "weights_after": weights_after,
        }
        return events.event(outcome, self._texts, self.setup.identity, context)

    def _refusals(self, asked: int) -> list[str]:
        """Why each question may not be adapted to; "" for those that may, whose grant is then logged."""
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

    def request(self, name: str, problem: str) -> str:
        """Returns the digest of a question and all settings that decide its answer; keyed like the texts of the log."""
        same = {key: self.setup.identity[key] for key in ("weights", "tokenizer", "settings", "policy")}
        asked = {"id": name, "problem": problem, "seed": self.setup.seed, "adapted": self._log is not None}
        return self._digest(canonical(asked | self._domain | same).decode())

    def _digest(self, text: str) -> str:
        """Keyed digest of the log, or SHA-256 without a log."""
        return sha256(text.encode()) if self._texts is None else self._texts.digest(text)

    def _recorded(self, questions: Sequence[Problem]) -> dict[str, Answer]:
        """Answers in the log by question id; a log without texts has none."""
        if self._log is None:
            return {}
        wanted = {self.request(question.id, question.problem): question for question in questions}
        found = {}
        for record, _ in records(self._log.path):
            question = wanted.get(record.get("request", ""))
            if question is not None and not isinstance(record["problem"], dict):
                found[question.id] = answer_of_record(record)
        return found


def _run_record(setup: Setup, log_text: Mode) -> dict[str, Any]:
    """The record of a process, shared by all of its events."""
    return {
        "kind": "run",
        "time": events.now(),
        "model": setup.label,
        "user": setup.user,
        "seed": setup.seed,
        "log_text": log_text,
        "identity": dict(setup.identity),
        "platform": identity.platform_of(),
        "settings": json.loads(setup.model.config.to_json()),
        "policy": json.loads(setup.policy.to_json()),
    }


def _domain(setup: Setup, digest: Callable[[str], str]) -> dict[str, Any]:
    """What decides an answer besides settings and policy: task, gates, regression suite and real examples."""
    real = canonical({"real": [dataclasses.astuple(example) for example in setup.model.real]})
    return {
        "task": setup.task_name,
        "gates": [gate.name for gate in setup.model.gates],
        "suite": adaptation.tree_sha256(setup.suite),
        "real": digest(real.decode()),
    }


def _plain(outcome: events.Outcome) -> events.Outcome:
    """The outcome without adaptation; keeps the reason if even the unadapted model has no answer."""
    return dataclasses.replace(outcome, decision="plain", reason="" if outcome.before is not None else outcome.reason)


def answer_of_record(record: Mapping[str, Any]) -> Answer:
    """Returns the answer that an event of a log with texts released."""
    fields = ("question", "problem", "answer", "before", "decision", "reason", "number", "tokens", "flops", "seconds")
    return Answer(*(record[field] for field in (*fields, "request")))
