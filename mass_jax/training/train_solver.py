"""Trains the baselines that update the solver alone: Solver GRPO, and supervised fine-tuning on gold solutions.

Shape suffixes: N problems per step, M attempts per problem.
"""

import functools
import pathlib
from collections.abc import Callable, Sequence

import jax
import optax

from mass_jax import runtime
from mass_jax.method import solver_grpo, solver_sft
from mass_jax.method.finite import check_finite
from mass_jax.method.models import Weights
from mass_jax.method.policy_state import PolicyState, init_state
from mass_jax.method.text import Rollout, Text
from mass_jax.tasks.base import Problem
from mass_jax.training import learners
from mass_jax.training.compiling import announced
from mass_jax.training.components import Components
from mass_jax.training.example_metrics import completion_metrics, sampler_metrics
from mass_jax.training.train import run_steps, task_order, to_floats
from mass_jax.types import Params

GRPO_STEP = "the step of solver_grpo"
SFT_STEP = "the step of solver_sft"
Updated = tuple[PolicyState, dict[str, float]]
"""The state after a step, and the metrics of the step."""


@functools.partial(jax.jit, static_argnames="learner", donate_argnames="state")
def grpo_step_jit(
    learner: solver_grpo.SolverGrpo,
    state: PolicyState,
    base: Params,
    attempts: Rollout,
    right_NM: jax.Array,
) -> tuple[PolicyState, dict[str, jax.Array]]:
    """Runs `grpo_step` and keeps the state on its shards."""
    state, metrics = solver_grpo.grpo_step(learner, state, base, attempts, right_NM)
    return runtime.constrain(state), metrics


@functools.partial(jax.jit, static_argnames="learner", donate_argnames="state")
def sft_step_jit(
    learner: solver_sft.SolverSft, state: PolicyState, base: Params, solutions: Text
) -> tuple[PolicyState, dict[str, jax.Array]]:
    """Runs `sft_step` and keeps the state on its shards."""
    state, metrics = solver_sft.sft_step(learner, state, base, solutions)
    return runtime.constrain(state), metrics


def train_solver_grpo(
    components: Components, problems: Sequence[Problem], *, seed: int, workdir: pathlib.Path, stop: runtime.Stop
) -> Weights:
    """Trains the Solver GRPO baseline on as many problems, steps and samples as MASS; resumes from the workdir.

    Args:
        components: the components of the run.
        problems: training problems.
        seed: random seed.
        workdir: directory of the checkpoints and of metrics.jsonl.
        stop: polled between phases.

    Raises:
        runtime.Interrupted: a stop was requested; the state is saved.
        NotFinite: too many updates in a row were not finite.
    """
    config, rollouts = components.config, components.rollouts
    learner = learners.grpo_learner(config, rollouts.solver)

    def update(state: PolicyState, base: Params, tasks: list[Problem], key: jax.Array) -> Updated:
        keys_N = jax.random.split(key, len(tasks))
        attempts, right_NM, _ = rollouts.attempt(
            Weights(base, state.policy),
            None,
            rollouts.feed.mine(tasks),
            keys_N,
            config.num_solver_attempts,
            config.temperature,
        )
        sampled = {"attempts": attempts}
        measured = completion_metrics(rollouts, tasks, sampled) | sampler_metrics(config, sampled)
        attempts, right_NM = rollouts.feed.put((attempts, right_NM), len(tasks))
        stop.poll()
        with announced(GRPO_STEP):
            state, metrics = grpo_step_jit(learner, state, base, attempts, right_NM)
        return state, to_floats(metrics) | measured | {"samples": float(len(tasks) * config.num_solver_attempts)}

    return _train("solver_grpo", components, problems, learner.optimizer, update, seed, workdir, stop)


def train_solver_sft(
    components: Components, problems: Sequence[Problem], *, seed: int, workdir: pathlib.Path, stop: runtime.Stop
) -> Weights:
    """Fine-tunes the generator on gold solutions of the problems that MASS_gold trains on; resumes from the workdir.

    It trains the same parameters with the same optimizer and schedule on MASS_gold's loss of gold solutions alone. The
    difference between the two rows is what the examples and their rewards add.

    Args:
        components: the components of the run.
        problems: training problems.
        seed: random seed.
        workdir: directory of the checkpoints and of metrics.jsonl.
        stop: polled before every step.

    Raises:
        runtime.Interrupted: a stop was requested; the state is saved.
        NotFinite: too many updates in a row were not finite.
    """
    rollouts = components.rollouts
    learner = learners.sft_learner(components.config, rollouts.solver)

    def update(state: PolicyState, base: Params, tasks: list[Problem], key: jax.Array) -> Updated:
        del key
        solutions = rollouts.dialogue.gold(rollouts.feed.mine(tasks))
        text = rollouts.feed.put(solutions.text, len(tasks))
        with announced(SFT_STEP):
            state, metrics = sft_step_jit(learner, state, base, text)
        return state, to_floats(metrics) | {"samples": 0.0}

    return _train("solver_sft", components, problems, learner.optimizer, update, seed, workdir, stop)


def _train(
    label: str,
    components: Components,
    problems: Sequence[Problem],
    optimizer: optax.GradientTransformation,
    update: Callable[[PolicyState, Params, list[Problem], jax.Array], Updated],
    seed: int,
    workdir: pathlib.Path,
    stop: runtime.Stop,
) -> Weights:
    """Trains the policy by one update per batch of problems, from the state, the frozen parameters and a random key."""
    config, key = components.config, jax.random.key(seed)
    start = components.fresh_weights(jax.random.fold_in(key, 1))
    draws = task_order(len(problems), config.tasks_per_step, seed)

    def one_step(i: int, state: PolicyState) -> Updated:
        step_key = jax.random.fold_in(jax.random.fold_in(key, 3), i)
        state, metrics = update(state, start.base, [problems[j] for j in draws(i)], step_key)
        check_finite(state.policy_opt_state, limit=config.max_skipped_steps)
        return state, metrics

    state = components.rollouts.feed.place(init_state(optimizer, start.policy))
    state = run_steps(label, workdir, state, one_step, config, stop)
    return Weights(start.base, state.policy)
