"""Samples the batch of one meta-training step.

Shape suffixes: N problems of all processes, J solutions per problem.
"""

from typing import NamedTuple

import jax
import numpy as np

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.method import generate, learning, meta_step
from mass_jax.method.text import Rollout
from mass_jax.tasks.base import Problem
from mass_jax.training.compiling import announced
from mass_jax.training.rollout import Rollouts, adapt_jit, adaptation_name, scores_jit, scores_name
from mass_jax.types import Params


class Collected(NamedTuple):
    """Samples of one step.

    Attributes:
        tasks: the problems of all processes.
        batch: the batch of all processes.
        synthetic: the parsed examples of this process's problems.
        sampled: all rollouts of this process's problems, by name.
    """

    tasks: list[Problem]
    batch: meta_step.TaskBatch
    synthetic: generate.SyntheticExamples
    sampled: dict[str, Rollout]


def collect(
    rollouts: Rollouts,
    config: Config,
    learner: meta_step.Learner,
    state: meta_step.MetaState,
    base: Params,
    tasks: list[Problem],
    key: jax.Array,
    stop: runtime.Stop,
) -> Collected:
    """Samples one step's batch: synthetic examples, and the solutions of the outer loss.

    Args:
        rollouts: samples and adapts.
        config: numbers of examples and attempts.
        learner: decides between gold solutions and attempts.
        state: current state of the generator and the scorer.
        base: frozen parameters.
        tasks: the problems of all processes.
        key: random key of the step.
        stop: polled between phases.

    Source: step (1) of the paper's section 2.3.
    """
    feed, weights = rollouts.feed, learning.weights_of(base, state)
    count, own = len(tasks), feed.mine(tasks)
    write_keys_N, adapter_keys_N, attempt_keys_N = (
        jax.random.split(jax.random.fold_in(key, i), count) for i in (1, 2, 3)
    )
    synthetic, written = rollouts.write_examples(weights, own, write_keys_N, config.num_examples)
    sampled = {"examples": written}
    stop.poll()
    examples, texts, generated = feed.put((synthetic.examples, synthetic.scorer_texts, written), count)
    adapters = feed.place(learner.loop.init_adapters(adapter_keys_N))
    if learner.objective.gold:
        solutions, right_NJ = rollouts.dialogue.gold(own), np.ones((len(own), 1), np.float32)
    else:
        with announced(scores_name(texts.tokens_BT.shape)):
            scores_NM = scores_jit(learner.scorer, state.scorer, texts, learner.loop.tasks_at_a_time)
        with announced(adaptation_name(examples.tokens_BT.shape, scored=True)):
            adapted = adapt_jit(learner.loop, weights, adapters, scores_NM, examples)
        solutions, right_NJ, _ = rollouts.attempt(
            weights, adapted, own, attempt_keys_N, config.num_attempts, config.temperature
        )
        sampled["attempts"] = solutions
    stop.poll()
    solutions, right_NJ = feed.put((solutions, right_NJ), count)
    batch = meta_step.TaskBatch(examples, texts, generated, solutions, right_NJ, adapters)
    return Collected(tasks, batch, synthetic, sampled)
