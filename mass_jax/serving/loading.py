"""Answers better by adapting to each question, and lets no answer out before the log holds what was done for it.

    solver = mass_jax.serving.loading.load("runs/tiny")
    answers = solver(["4 kabo 3"])

A question is answered as it is, practice is written for it, gates judge the practice, an adapter is trained on what
passed, bounds and a regression suite judge the adapter; its answer is released if all held, the plain one if not. The
stages are in `mass_jax.audit`; this is what puts them together.
"""

import dataclasses
import os
import pathlib
import pwd
from collections.abc import Sequence
from typing import Any

import jax

from mass_jax.audit.log import EventLog
from mass_jax.audit.texts import Mode, Texts
from mass_jax.errors import UserError
from mass_jax.serving import adaptation, identity, source, stages
from mass_jax.serving.batch import Setup, Writer
from mass_jax.serving.guards import gates, policy, regression
from mass_jax.serving.service import AdaptationService, Answer, Question, WeightsChanged, as_questions
from mass_jax.tasks.base import Example, Task

__all__ = ["AdaptationService", "Answer", "Question", "WeightsChanged", "as_questions", "load", "make_model"]


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
) -> AdaptationService:
    """A solver of questions.

    Args:
        model: a workdir of `experiments.train`, "tiny", or a directory or hub id with Hugging Face files.
        run, train_seed: which training run of the workdir, see `serving.source.load_model`.
        policy_file: the operator's policy, or its file; WORKDIR/policy.json. There is none by default.
        log: the event log; WORKDIR/audit/events.jsonl.
        log_text: "full", or "hash" to keep texts out of the log.
        seed: of everything drawn.
        batch: most questions at a time.
        suite: JSONL file of the regression suite; None takes the embedded one, posed by the model's own task.
        real: examples known to be real; None takes training problems of the model's own task.
        task: another domain: the methods of `tasks.base.Task`, and perhaps that of `gates.Recomputes`; None is the
            model's own.
        more_gates: gates beside the policy's.
        writer: what writes the practice.
        adapt: False answers plainly, without policy and log.

    Raises:
        UserError: something is missing or contradictory, in one line.
        audit.chain.Broken: the log does not hold.
    """
    permitted = policy.Policy(gates={}) if not adapt else _policy(model, policy_file)
    found = source.load_model(model, run, train_seed)
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
        return AdaptationService(setup, None, None, ledger, batch)
    path = _beside(model, log, "audit/events.jsonl", "--log")
    return AdaptationService(setup, EventLog(path, ledger.note), Texts(path, log_text), ledger, batch)


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
    if permitted.min_examples > parts.config.num_test_examples - num_real:
        raise UserError(
            f"min_examples={permitted.min_examples} of the policy can never pass: "
            f"{parts.config.num_test_examples - num_real} are written; lower it or real_share"
        )
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


def _policy(model: str, given: str | pathlib.Path | policy.Policy | None) -> policy.Policy:
    if isinstance(given, policy.Policy):
        return given
    return policy.read_policy(_beside(model, given, "policy.json", "--policy"))


def _beside(model: str, given: str | pathlib.Path | None, name: str, flag: str) -> pathlib.Path:
    """The path that was given, or the usual one in a workdir."""
    if given is not None:
        return pathlib.Path(given)
    if not (pathlib.Path(model) / "config.json").is_file() or (pathlib.Path(model) / "tokenizer.json").is_file():
        raise UserError(f"{flag} is missing; {model!r} is no workdir that could hold {name}")
    return pathlib.Path(model) / name


def _user() -> str:
    """Who asks: the name of the account, or its number where it has none, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
