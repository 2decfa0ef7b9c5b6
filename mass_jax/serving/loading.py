"""Loads the adaptation service: model, policy, gates, regression suite and audit log.

    service = mass_jax.serving.load("runs/tiny")
    answers = service(["4 kabo 3"])

For each question the service answers without adaptation, writes synthetic examples, checks them with the gates, trains
an adapter on those that pass, and checks the adapter with bounds and the regression suite. It releases the adapted
answer if every check passes, else the unadapted one, and logs the event first.
"""

import dataclasses
import os
import pathlib
import pwd
from collections.abc import Sequence
from typing import Any

import jax
import optax

from mass_jax.audit.log import EventLog
from mass_jax.audit.texts import Mode, Texts
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.method.models import Weights
from mass_jax.serving import adaptation, candidates, identity, source, stages
from mass_jax.serving.batch import OnAdapter, Setup, Writer
from mass_jax.serving.guards import gates, policy, policy_file, regression
from mass_jax.serving.service import AdaptationService, Answer, Question, WeightsChanged, as_questions
from mass_jax.tasks.base import Example, Task
from mass_jax.training import samplers
from mass_jax.training.rollout import Rollouts

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
    sampler: str = samplers.NATIVE,
    own_task: str | None = None,
    sampler_url: str | None = None,
    sampler_timeout: float | None = None,
    sampler_tolerance: float | None = None,
    on_adapter: OnAdapter | None = None,
    inner_optimizer: optax.GradientTransformation | str | None = None,
) -> AdaptationService:
    """Loads a service that answers questions by adapting to each of them.

    Args:
        model: a workdir of `experiments.train`, "tiny", or a directory or hub id with Hugging Face files.
        run: training run of the workdir; see `serving.source.load_model`.
        train_seed: meta-training seed of the workdir.
        policy_file: the operator's policy or its file; the default is WORKDIR/policy.json, which must exist.
        log: the event log; the default is WORKDIR/audit/events.jsonl.
        log_text: "full", or "hash" to keep texts out of the log.
        seed: random seed.
        batch: largest number of questions per batch.
        suite: JSONL file of the regression suite; the default is embedded and posed by the model's own task.
        real: real examples; the default is training problems of the model's own task.
        task: another domain, a `tasks.base.Task` that may also implement `gates.Recomputes`; the default is the
            model's own.
        more_gates: gates in addition to the policy's.
        writer: writes the synthetic examples.
        adapt: False answers without adaptation, policy or log.
        sampler: sampler of all completions: "native", "vllm", "module:class" or "file.py:class".
        own_task: the model's own task, if it is code of yours; see `serving.source.load_model`.
        sampler_url: address of the server for "vllm"; None is the default of --sampler_url.
        sampler_timeout: seconds that a request of it may take; None is the value in the model's settings.
        sampler_tolerance: largest difference from the model in its start-up probe; None likewise.
        on_adapter: called with the id and the adapter of each question whose answer is that of the adapted model.
        inner_optimizer: optimizer of the inner loop, if it is code of yours; see `serving.source.load_model`.

    Raises:
        UserError: an argument or file is missing, invalid or contradicts another.
        audit.chain.Broken: the log fails verification.
    """
    permitted = policy.Policy(gates={}) if not adapt else _policy(model, policy_file)
    limits = (sampler_timeout, sampler_tolerance)
    found = source.load_model(
        model, run, train_seed, sampler, inner_optimizer, own_task, sampler_url, *limits, adapts=adapt
    )
    if real is None and task is None:
        problems = found.chosen.problems(found.config.seeds[0]).train[: stages.REAL_EXAMPLES]
        real = [Example(problem.problem, problem.solution) for problem in problems]
    rollouts = found.rollouts if task is None else found.rollouts.with_task(task)
    served = make_model(found.config, rollouts, found.weights, permitted, real or (), more_gates)
    served, refused = stages.within_limits(served, permitted.limits)
    # The embedded suite has problems of the model's own task.
    suite_file, poser = (None, found.chosen.task) if suite is None else (pathlib.Path(suite), served.dialogue.task)
    pairs = regression.read_suite(suite_file, found.directory, poser)
    texts = regression.encode_suite(served.dialogue, pairs)
    setup = Setup(
        model=served,
        chosen=found.chosen,
        policy=permitted,
        refused=refused,
        suite=texts,
        suite_before=jax.device_get(adaptation.score_suite(served.solver, found.weights, None, texts)),
        identity=identity.identity(found.weights, found.directory, served.config.to_json(), permitted.to_json()),
        label=found.label,
        user=_user(),
        task_name=found.config.task if task is None else type(task).__name__,
        seed=seed,
        writer=writer,
        on_adapter=on_adapter,
    )
    ledger = policy.Ledger()
    if not adapt:
        return AdaptationService(setup, None, None, ledger, batch)
    path = _beside(model, log, "audit/events.jsonl", "--log")
    return AdaptationService(setup, EventLog(path, ledger.note), Texts(path, log_text), ledger, batch)


def make_model(
    config: Config,
    rollouts: Rollouts,
    weights: Weights,
    permitted: policy.Policy,
    real: Sequence[Example],
    more: Sequence[gates.Gate] = (),
) -> stages.Model:
    """Combines a model with the gates of a policy.

    Args:
        config: the settings.
        rollouts: samples and adapts.
        weights: base weights and trained parameters.
        permitted: the policy.
        real: real examples.
        more: gates in addition to the policy's.

    Raises:
        UserError: the policy can never be met, or needs more real examples than there are.
    """
    num_real = round(permitted.real_share * config.num_test_examples)
    if num_real >= config.num_test_examples:
        raise UserError(f"real_share={permitted.real_share} leaves no synthetic examples; lower it")
    if permitted.min_examples > config.num_test_examples - num_real:
        raise UserError(
            f"min_examples={permitted.min_examples} of the policy exceeds the "
            f"{config.num_test_examples - num_real} synthetic examples per question; lower it or real_share"
        )
    if len(real) < max(num_real, "calibration" in permitted.gates):
        raise UserError(
            f"the policy needs real examples, but there are {len(real)}; pass more with --real=FILE, in Python real="
        )
    model = stages.Model(config, rollouts, weights, (), real, num_real)
    made = []
    for name, settings in permitted.gates.items():
        known: dict[str, Any] = {}
        if name == "calibration":
            known = {"real_nll": candidates.real_nll(model)}
        elif name == "length":
            known = {"max_tokens": config.max_example_tokens}
        made.append(gates.SHIPPED[name](**{**known, **settings}))
    return dataclasses.replace(model, gates=(*made, *more))


def _policy(model: str, given: str | pathlib.Path | policy.Policy | None) -> policy.Policy:
    if isinstance(given, policy.Policy):
        return given
    return policy_file.read_policy(_beside(model, given, "policy.json", "--policy"))


def _beside(model: str, given: str | pathlib.Path | None, name: str, flag: str) -> pathlib.Path:
    """The given path, or the default one in a workdir."""
    if given is not None:
        return pathlib.Path(given)
    if not (pathlib.Path(model) / "config.json").is_file() or (pathlib.Path(model) / "tokenizer.json").is_file():
        raise UserError(f"{flag} is missing; {model!r} is not a workdir with a default {name}")
    return pathlib.Path(model) / name


def _user() -> str:
    """Name of the account, or its number if it has no name, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
