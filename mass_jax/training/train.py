"""Meta-training on one page: sample, score, adapt, differentiate, update; the baseline beside it.

Letters: N tasks a step, M examples of a task.
"""

import functools
import pathlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mass_jax import runtime
from mass_jax.method import adapt, generate, meta_step, score, solver_grpo
from mass_jax.method.finite import check_finite
from mass_jax.method.models import Solver, Weights
from mass_jax.method.signal import SignalWatch
from mass_jax.method.text import Rollout, Text
from mass_jax.runtime.metrics import read_metrics
from mass_jax.tasks.base import Problem, Verdict
from mass_jax.training.components import Parts
from mass_jax.training.example_metrics import cut_off_shares, judge

OneStep = Callable[[int, Any], tuple[Any, dict[str, float]]]


@functools.partial(jax.jit, static_argnames="learner", donate_argnames="state")
def meta_step_jit(learner: meta_step.Learner, state: Any, base: Any, batch: Any, key: jax.Array) -> Any:
    state, found = meta_step.meta_step(learner, state, base, batch, key)
    return runtime.constrain(state), found


@functools.partial(jax.jit, static_argnames="learner", donate_argnames="state")
def _grpo_step(learner: solver_grpo.SolverGrpo, state: Any, base: Any, attempts: Any, right_NM: jax.Array) -> Any:
    state, metrics = solver_grpo.grpo_step(learner, state, base, attempts, right_NM)
    return runtime.constrain(state), metrics


scores_jit = jax.jit(score.scores, static_argnames="trunk")
adapt_jit = jax.jit(adapt.adapt, static_argnames="loop")


class Trained(NamedTuple):
    """What meta-training made: the generator, and the scorer that taught it."""

    weights: Weights
    scorer: Any


def train_mass(
    parts: Parts,
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
        parts: model and settings.
        problems: meta-training problems.
        seed: of everything drawn.
        outer: "gold" or "verifier".
        workdir: for checkpoints and metrics.jsonl.
        stop: polled between phases.
        control: None, "shuffled" or "unrewarded".

    Returns:
        The trained generator and scorer.

    Raises:
        runtime.Interrupted: a stop was asked for; the state is saved.
        NotFinite: updates keep failing.
    """
    learner = parts.learner(outer, control)
    key = jax.random.key(seed)
    start = parts.fresh_weights(jax.random.fold_in(key, 1))
    state = meta_step.init_state(jax.random.fold_in(key, 2), learner, start.policy)
    draws = task_order(len(problems), parts.config.tasks_per_step, seed)

    def one_step(i: int, state: meta_step.MetaState) -> tuple[meta_step.MetaState, dict[str, float]]:
        step_key = jax.random.fold_in(jax.random.fold_in(key, 3), i)
        tasks = [problems[j] for j in draws(i)]
        batch, practice, sampled = collect(parts, learner, state, start.base, tasks, step_key, stop)
        state, found = meta_step_jit(learner, state, start.base, batch, jax.random.fold_in(step_key, 0))
        check_finite(state.policy_opt_state, state.scorer_opt_state, limit=parts.config.max_skipped_steps)
        metrics = to_floats(found.metrics)
        if learner.objective.gold:
            del metrics["right_rate"]  # gold solutions are right
        return state, metrics | judge(parts, tasks, practice, found) | cut_off_shares(parts, tasks, sampled)

    label = " ".join(filter(None, ("mass", outer, control)))
    state = run_steps(label, workdir, parts.feed.place(state), one_step, parts.config, stop)
    return Trained(Weights(start.base, state.policy), state.scorer)


def collect(
    parts: Parts,
    learner: meta_step.Learner,
    state: meta_step.MetaState,
    base: Any,
    tasks: Sequence[Problem],
    key: jax.Array,
    stop: runtime.Stop,
) -> tuple[meta_step.TaskBatch, generate.Practice, dict[str, Rollout]]:
    """Phase (1) of an iteration: examples for each task, and what the outer loss is to be taken on.

    Returns:
        The batch of all processes, and of this one's tasks the practice and all that was sampled.
    """
    config, dialogue, weights = parts.config, parts.dialogue, Weights(base, state.policy)
    count, own = len(tasks), parts.feed.mine(tasks)
    write_keys_N, adapter_keys_N, attempt_keys_N = (
        jax.random.split(jax.random.fold_in(key, i), count) for i in (1, 2, 3)
    )
    practice, written = write_examples(parts, weights, own, write_keys_N, config.num_examples)
    sampled = {"examples": written}
    stop.poll()
    examples, texts, generated = parts.feed.put((practice.examples, practice.scorer_texts, written), count)
    adapters = parts.feed.place(learner.loop.init_adapters(adapter_keys_N))
    if learner.objective.gold:
        solutions, right_NJ = dialogue.gold(own), np.ones((len(own), 1), np.float32)
    else:
        scores_NM = scores_jit(learner.scorer, state.scorer, texts)
        adapted = adapt_jit(learner.loop, weights, adapters, scores_NM, examples)
        solutions, right_NJ, _ = attempt(
            parts, weights, adapted, own, attempt_keys_N, config.num_attempts, config.temperature
        )
        sampled["attempts"] = solutions
    stop.poll()
    solutions, right_NJ = parts.feed.put((solutions, right_NJ), count)
    return meta_step.TaskBatch(examples, texts, generated, solutions, right_NJ, adapters), practice, sampled


def write_examples(
    parts: Parts, weights: Weights, tasks: Sequence[Problem], keys_N: jax.Array, count: int
) -> tuple[generate.Practice, Rollout]:
    """The generator writes `count` practice examples for each of this process's tasks; keys are those of all."""
    prompts = parts.dialogue.generator_prompts(tasks)
    limits = {"num_samples": count, "max_new_tokens": parts.config.max_example_tokens}
    texts, rollout = _sample(parts, weights, None, prompts, keys_N, parts.config.temperature, **limits)
    return parts.dialogue.practice(tasks, texts), rollout


def attempt(
    parts: Parts,
    weights: Weights,
    adapted: Any,
    tasks: Sequence[Problem],
    keys_N: jax.Array,
    count: int,
    temperature: float,
) -> tuple[Rollout, np.ndarray, list[list[str]]]:
    """`count` attempts at each of this process's tasks by its adapted model (None: the unadapted one), verified.

    Returns:
        Attempts [N, M, T], right_NM (float32), responses.
    """
    prompts = parts.dialogue.solver_prompts(tasks)
    rollout, responses = respond(parts, weights, adapted, prompts, keys_N, count, temperature)
    flat = [response for row in responses for response in row]
    verdicts = parts.dialogue.task.verify([task for task in tasks for _ in range(count)], flat)
    right = np.array([verdict is Verdict.RIGHT for verdict in verdicts], np.float32).reshape(len(tasks), count)
    # Processes that share a task take one verdict: a verifier's time-out on one alone would drive their steps apart.
    rows = parts.feed.rows(len(keys_N))
    right = np.array(runtime.gather_rows(runtime.mine(rows, right.tolist()))[rows], np.float32)
    return rollout, right, responses


def respond(
    parts: Parts,
    weights: Weights,
    adapted: Any,
    prompts: tuple[np.ndarray, np.ndarray],
    keys_N: jax.Array,
    count: int,
    temperature: float,
) -> tuple[Rollout, list[list[str]]]:
    """`count` responses to each prompt, not verified: attempts [N, M, T] and their texts."""
    limits = {"num_samples": count, "max_new_tokens": parts.config.max_answer_tokens}
    responses, rollout = _sample(parts, weights, adapted, prompts, keys_N, temperature, **limits)
    return rollout, responses


def _sample(
    parts: Parts,
    weights: Weights,
    inner: Any,
    prompts: tuple[np.ndarray, np.ndarray],
    keys_N: jax.Array,
    temperature: float,
    **limits: int,
) -> tuple[list[list[str]], Rollout]:
    """Samples as texts, and as rollouts under the model's own probabilities (temperature 1)."""
    count, feed = len(keys_N), parts.feed
    fed = feed.put(prompts, count)
    drawn = generate.sample(parts.solver, weights, inner, *fed, feed.spread(keys_N), temperature=temperature, **limits)
    samples = feed.get(drawn, count)
    rollout = generate.rollout(prompts, samples)
    if temperature not in (0.0, 1.0):
        # The sampler reports the tempered policy; the ratio's numerator is the model, so its denominator must be too.
        logprobs = _logprobs(parts.solver, weights, feed.put(rollout.text, count), inner)
        rollout = rollout._replace(logprobs_BT=feed.get(logprobs, count) * rollout.text.target_BT)
    return parts.dialogue.read(samples), rollout


@functools.partial(jax.jit, static_argnames="solver")
def _logprobs(solver: Solver, weights: Weights, text: Text, inner: Any) -> jax.Array:
    """Log-probabilities of rows [N, M, T], each task under its own adapter."""
    axes = (0, None if inner is None else 0)
    return jax.vmap(lambda rows, adapter: solver.logprobs(weights, rows, adapter), in_axes=axes)(text, inner)


def train_solver_grpo(
    parts: Parts, problems: Sequence[Problem], *, seed: int, workdir: pathlib.Path, stop: runtime.Stop
) -> Weights:
    """Trains the Solver GRPO baseline on the same tasks, steps and samples; resumes from the workdir."""
    learner, key = parts.solver_grpo(), jax.random.key(seed)
    start = parts.fresh_weights(jax.random.fold_in(key, 1))
    state = solver_grpo.init_state(learner, start.policy)
    draws = task_order(len(problems), parts.config.tasks_per_step, seed)

    def one_step(i: int, state: solver_grpo.GrpoState) -> tuple[solver_grpo.GrpoState, dict[str, float]]:
        tasks = [problems[j] for j in draws(i)]
        keys_N = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 3), i), len(tasks))
        weights = Weights(start.base, state.policy)
        own = parts.feed.mine(tasks)
        attempts, right_NM, _ = attempt(
            parts, weights, None, own, keys_N, parts.config.num_solver_attempts, parts.config.temperature
        )
        attempts, right_NM = parts.feed.put((attempts, right_NM), len(tasks))
        stop.poll()
        state, metrics = _grpo_step(learner, state, start.base, attempts, right_NM)
        check_finite(state.policy_opt_state, limit=parts.config.max_skipped_steps)
        return state, to_floats(metrics)

    state = run_steps("solver_grpo", workdir, parts.feed.place(state), one_step, parts.config, stop)
    return Weights(start.base, state.policy)


def run_steps(label: str, workdir: pathlib.Path, state: Any, one_step: OneStep, config: Any, stop: runtime.Stop) -> Any:
    """Runs the steps of a training: resumes, logs, saves, and warns of steps without a signal.

    Raises:
        runtime.Interrupted: a stop was asked for; the finished steps are saved.
    """
    with runtime.Checkpoints(workdir / "checkpoints") as checkpoints:
        done, state = checkpoints.restore(state) or (0, state)
        metrics = runtime.MetricsLog(workdir / "metrics.jsonl", next_step=done)
        watch = SignalWatch(label, read_metrics(workdir / "metrics.jsonl")) if runtime.is_first() else None
        try:
            for i, report in runtime.progress(label, done, config.steps):
                stop.poll()
                began = time.monotonic()
                state, row = one_step(i, state)
                done = i + 1
                metrics.write(i, row | {"step_time": time.monotonic() - began})
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


def task_order(count: int, batch: int, seed: int) -> Callable[[int], list[int]]:
    """Which problems step i takes: epoch after epoch, each in a new random order.

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
    """Scalars on the host, in one transfer."""
    return {name: float(value) for name, value in jax.device_get(metrics).items()}
