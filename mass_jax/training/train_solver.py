"""Trains the baselines that update the solver alone: Solver GRPO, and supervised fine-tuning on gold solutions.

Shape suffixes: N problems per step, M attempts per problem.
"""

import functools
import pathlib
from collections.abc import Sequence

import jax

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
from mass_jax.training.example_metrics import sampler_metrics
from mass_jax.training.train import run_steps, task_order, to_floats
from mass_jax.types import Params

GRPO_STEP = "the step of solver_grpo"
SFT_STEP = "the step of solver_sft"


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
    config, rollouts, key = components.config, components.rollouts, jax.random.key(seed)
    learner = learners.grpo_learner(config, rollouts.solver)
    start = components.fresh_weights(jax.random.fold_in(key, 1))
    state = init_state(learner.optimizer, start.policy)
    draws = task_order(len(problems), config.tasks_per_step, seed)

    def one_step(i: int, state: PolicyState) -> tuple[PolicyState, dict[str, float]]:
        tasks = [problems[j] for j in draws(i)]
        keys_N = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 3), i), len(tasks))
        weights = Weights(start.base, state.policy)
        own = rollouts.feed.mine(tasks)
        attempts, right_NM, _ = rollouts.attempt(
            weights, None, own, keys_N, config.num_solver_attempts, config.temperature
        )
        mismatch = sampler_metrics(config, {"attempts": attempts})
        attempts, right_NM = rollouts.feed.put((attempts, right_NM), len(tasks))
        stop.poll()
        with announced(GRPO_STEP):
            state, metrics = grpo_step_jit(learner, state, start.base, attempts, right_NM)
        check_finite(state.policy_opt_state, limit=config.max_skipped_steps)
        return state, to_floats(metrics) | mismatch | {"samples": float(len(tasks) * config.num_solver_attempts)}

    state = run_steps("solver_grpo", workdir, rollouts.feed.place(state), one_step, config, stop)
    return Weights(start.base, state.policy)


def train_solver_sft(
    components: Components, problems: Sequence[Problem], *, seed: int, workdir: pathlib.Path, stop: runtime.Stop
) -> Weights:
    """Fine-tunes the generator on gold solutions of the problems that MASS_gold trains on; resumes from the workdir.

    It trains the same parameters with the same optimizer and schedule on MASS_gold's loss of gold solutions alone. So
    what MASS_gold reaches beyond this row comes from the examples and their rewards.

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
    config, rollouts, key = components.config, components.rollouts, jax.random.key(seed)
    learner = learners.sft_learner(config, rollouts.solver)
    start = components.fresh_weights(jax.random.fold_in(key, 1))
    state = init_state(learner.optimizer, start.policy)
    draws = task_order(len(problems), config.tasks_per_step, seed)

    def one_step(i: int, state: PolicyState) -> tuple[PolicyState, dict[str, float]]:
        tasks = [problems[j] for j in draws(i)]
        solutions = rollouts.dialogue.gold(rollouts.feed.mine(tasks))
        text = rollouts.feed.put(solutions.text, len(tasks))
        with announced(SFT_STEP):
            state, metrics = sft_step_jit(learner, state, start.base, text)
        check_finite(state.policy_opt_state, limit=config.max_skipped_steps)
        return state, to_floats(metrics) | {"samples": 0.0}

    state = run_steps("solver_sft", workdir, rollouts.feed.place(state), one_step, config, stop)
    return Weights(start.base, state.policy)
