"""Meta-training: sample, score, adapt, differentiate and update.

Shape suffixes: N problems per step, M examples per problem.
"""

import contextlib
import dataclasses
import functools
import pathlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.method import drift, learning, meta_step
from mass_jax.method.finite import check_finite
from mass_jax.method.models import Weights
from mass_jax.method.signal import SignalWatch
from mass_jax.runtime.metrics import read_metrics
from mass_jax.runtime.trackers import Trackers, open_trackers
from mass_jax.tasks.base import Problem
from mass_jax.training import learners
from mass_jax.training.check import SignalCheck
from mass_jax.training.check_inner import check_inner_optimizer
from mass_jax.training.collect import collect
from mass_jax.training.compiling import announced
from mass_jax.training.components import Components
from mass_jax.training.dynamic_sampling import collect_with_signal, redraws
from mass_jax.training.example_metrics import completion_metrics, example_metrics, sampler_metrics
from mass_jax.types import Params, PyTree

OneStep = Callable[[int, Any], tuple[Any, dict[str, float]]]
"""Takes the step number and the state; returns the next state and the metrics."""


@functools.partial(jax.jit, static_argnames="learner", donate_argnames="state")
def meta_step_jit(
    learner: meta_step.Learner, state: meta_step.MetaState, base: Params, batch: meta_step.TaskBatch, key: jax.Array
) -> tuple[meta_step.MetaState, meta_step.StepOutput]:
    """Runs `meta_step` and keeps the state on its shards; the old state's buffers are donated."""
    state, output = meta_step.meta_step(learner, state, base, batch, key)
    return runtime.constrain(state), output


class Trained(NamedTuple):
    """Result of meta-training.

    Attributes:
        weights: the generator's weights.
        scorer: the scorer's parameters; None where no scorer was trained.
    """

    weights: Weights
    scorer: Params | None


def train_mass(
    components: Components,
    problems: Sequence[Problem],
    *,
    seed: int,
    outer: str,
    workdir: pathlib.Path,
    stop: runtime.Stop,
    control: str | None = None,
) -> Trained:
    """Meta-trains MASS; resumes from the workdir.

    Args:
        components: the components of the run.
        problems: meta-training problems.
        seed: random seed.
        outer: outer loss, "gold" or "verifier".
        workdir: directory of the checkpoints and of metrics.jsonl.
        stop: polled between phases.
        control: None, "shuffled" or "unrewarded".

    Returns:
        The trained generator and scorer.

    Raises:
        runtime.Interrupted: a stop was requested; the state is saved.
        NotFinite: too many updates in a row were not finite.
    """
    config = components.config
    rollouts = components.rollouts
    check_inner_optimizer(config, rollouts.loop)
    learner = learners.mass_learner(config, rollouts.loop, components.scorer, outer, control)
    key = jax.random.key(seed)
    start = components.fresh_weights(jax.random.fold_in(key, 1))
    state = meta_step.init_state(jax.random.fold_in(key, 2), learner, start.policy)
    draws = task_order(len(problems), config.tasks_per_step, seed)
    label = label_of(outer, control)
    check = SignalCheck(components, learner, label)

    def one_step(i: int, state: meta_step.MetaState) -> tuple[meta_step.MetaState, dict[str, float]]:
        step_key = jax.random.fold_in(jax.random.fold_in(key, 3), i)
        numbers = draws(i)
        (tasks, batch, synthetic, sampled), redrawn = collect_with_signal(
            lambda tasks, key: collect(rollouts, config, learner, state, start.base, tasks, key, stop),
            rollouts.dialogue.parse,
            rollouts.feed,
            [problems[j] for j in numbers],
            lambda redraw: [problems[j] for j in redraws(len(problems), seed, i, numbers, redraw)],
            step_key,
            0 if learner.objective.gold else config.dynamic_sampling,
        )
        batch, drifted = _measure_drift(components, i, batch)
        measured = check.before(i, state, start.base, tasks, batch)
        with announced(meta_step_name(outer, control)):
            state, output = meta_step_jit(learner, state, start.base, batch, jax.random.fold_in(step_key, 0))
        check_finite(state.policy_opt_state, state.scorer_opt_state, limit=config.max_skipped_steps)
        metrics = to_floats(output.metrics | drifted)
        if learner.objective.gold:
            del metrics["right_rate"]  # always 1 for gold solutions
        samples = len(tasks) * (config.num_examples + (0 if learner.objective.gold else config.num_attempts))
        metrics |= {"samples": float(samples * (1 + redrawn)), "extra_samples": float(samples * redrawn)}
        metrics |= example_metrics(rollouts, tasks, synthetic, output) | check.after(i, measured, output)
        return state, metrics | completion_metrics(rollouts, tasks, sampled) | sampler_metrics(config, sampled)

    state = run_steps(label, workdir, rollouts.feed.place(state), one_step, config, stop)
    return Trained(learning.weights_of(start.base, state), state.scorer)


def label_of(outer: str, control: str | None) -> str:
    """Returns the name of a run of MASS in log lines.

    >>> label_of("gold", None), label_of("verifier", "shuffled")
    ('mass gold', 'mass verifier shuffled')
    """
    return " ".join(filter(None, ("mass", outer, control)))


def meta_step_name(outer: str, control: str | None) -> str:
    """Returns the name of the program of a meta-step."""
    return f"the meta-step of {label_of(outer, control)}"


def _measure_drift(
    components: Components, step: int, batch: meta_step.TaskBatch
) -> tuple[meta_step.TaskBatch, dict[str, jax.Array]]:
    """Returns the batch, with what the KL term needs if there is one, and the metrics of the drift."""
    config = components.config
    if not (config.kl_coef or (config.drift_every and step % config.drift_every == 0)):
        return batch, {}
    solver, params = components.rollouts.solver, components.model.params
    text, length = batch.generated.text, config.max_example_tokens
    with announced("log-probabilities before training"):
        started_NMT = drift.start_logprobs(solver, params, text, length, config.tasks_at_a_time)
    metrics = {"kl_to_start": drift.kl_to_start(batch.generated, started_NMT)}
    return batch._replace(start_logprobs_NMT=started_NMT) if config.kl_coef else batch, metrics


def run_steps(
    label: str, workdir: pathlib.Path, state: PyTree, one_step: OneStep, config: Config, stop: runtime.Stop
) -> PyTree:
    """Runs the training steps: resumes, logs metrics, saves checkpoints, and warns of steps without signal.

    Args:
        label: name of the training in log lines.
        workdir: directory of the checkpoints and of metrics.jsonl.
        state: initial state, used unless a checkpoint exists.
        one_step: the training step.
        config: number of steps and interval of checkpoints.
        stop: polled before every step.

    Returns:
        The state after the last step.

    Raises:
        runtime.Interrupted: a stop was requested; the finished steps are saved.
    """
    with contextlib.ExitStack() as held:
        checkpoints = held.enter_context(runtime.Checkpoints(workdir / "checkpoints"))
        done, state = checkpoints.restore(state) or (0, state)
        metrics = runtime.MetricsLog(workdir / "metrics.jsonl", next_step=done)
        trackers = held.enter_context(_trackers(config, workdir, done, metrics))
        watch = SignalWatch(label, read_metrics(workdir / "metrics.jsonl")) if runtime.is_first() else None
        try:
            for i, report in runtime.progress(label, done, config.steps):
                stop.poll()
                began = time.monotonic()
                state, row = one_step(i, state)
                done = i + 1
                row |= {"step_time": time.monotonic() - began}
                metrics.write(i, row)
                trackers.log(i, row)
                if watch is not None:
                    watch.note(row)
                report(**{name: row[name] for name in ("outer_loss", "reward", "useful_share") if name in row})
                if done % config.checkpoint_every == 0 or done == config.steps:
                    checkpoints.save(done, state)
        except runtime.Interrupted:
            checkpoints.save(done, state)
            raise
    if watch is not None:
        watch.summarize()
    return state


def _trackers(config: Config, workdir: pathlib.Path, next_step: int, metrics: runtime.MetricsLog) -> Trackers:
    """Returns the trackers of a training run in WORKDIR/seedN/RUN."""
    settings = dataclasses.asdict(config)
    return open_trackers(config.trackers, workdir, workdir.parent.parent, settings, next_step, metrics.kept)


def task_order(count: int, batch: int, seed: int) -> Callable[[int], list[int]]:
    """Returns a function from a step to the numbers of its problems, shuffled anew in every epoch.

    >>> draws = task_order(4, 2, seed=0)
    >>> sorted(draws(0) + draws(1))
    [0, 1, 2, 3]
    """

    @functools.lru_cache(maxsize=2)
    def epoch(number: int) -> list[int]:
        order = list(range(count))
        random.Random(f"mass tasks {seed} {number}").shuffle(order)
        return order

    return lambda step: [epoch(j // count)[j % count] for j in range(step * batch, (step + 1) * batch)]


def to_floats(metrics: dict[str, jax.Array]) -> dict[str, float]:
    """Returns scalars as floats, in one transfer from the device."""
    return {name: float(value) for name, value in jax.device_get(metrics).items()}
