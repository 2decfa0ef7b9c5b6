"""Rollouts: encode prompts, sample completions, decode them and parse them.

Training, evaluation, qualitative examples and serving all sample through this module.

Shape suffixes: N problems, M samples per problem, T tokens.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from mass_jax import runtime
from mass_jax.method import adapt, generate, score
from mass_jax.method.models import Solver, Weights
from mass_jax.method.text import Rollout, Text
from mass_jax.tasks.base import Problem, Verdict
from mass_jax.training.compiling import announce
from mass_jax.training.components import Components
from mass_jax.types import Adapter

Prompts = tuple[np.ndarray, np.ndarray]
"""Right-padded tokens [N, T] and lengths [N]."""

scores_jit = jax.jit(score.scores, static_argnames="trunk")
adapt_jit = jax.jit(adapt.adapt, static_argnames="loop")


class Attempts(NamedTuple):
    """Verified responses to N problems, M each.

    Attributes:
        rollout: prompts with their responses, [N, M, T].
        right_NM: 1 for correct responses, float32.
        responses_NM: the responses as text.
    """

    rollout: Rollout
    right_NM: np.ndarray
    responses_NM: list[list[str]]


def write_examples(
    components: Components, weights: Weights, tasks: Sequence[Problem], keys_N: jax.Array, count: int
) -> tuple[generate.Practice, Rollout]:
    """Writes and parses `count` synthetic examples for each of this process's problems.

    Args:
        components: the components of the run.
        weights: the generator's weights.
        tasks: the problems of this process.
        keys_N: one random key per problem, for the problems of all processes.
        count: M.

    Returns:
        The parsed examples, and the rollout [N, M, T] that they were parsed from.
    """
    texts_NM, rollout = write_texts(components, weights, tasks, keys_N, count)
    return components.dialogue.practice(tasks, texts_NM), rollout


def write_texts(
    components: Components, weights: Weights, tasks: Sequence[Problem], keys_N: jax.Array, count: int
) -> tuple[list[list[str]], Rollout]:
    """Writes the texts of `write_examples` without parsing them."""
    prompts, limit = components.dialogue.generator_prompts(tasks), components.config.max_example_tokens
    temperature = components.config.temperature
    return sample_texts(components, weights, None, prompts, keys_N, count, limit, temperature)


def adapt_to_examples(
    components: Components, weights: Weights, practice: generate.Practice, keys_N: jax.Array
) -> Adapter:
    """Adapts to examples as at test time, where every parsed example has weight 1.

    Returns:
        Adapted adapters, leading axis N.
    """
    adapters = components.loop.init_adapters(keys_N)
    announce(f"adaptation to examples {practice.examples.tokens_BT.shape}")
    return adapt_jit(components.loop, weights, adapters, practice.kept_NM, practice.examples)


def respond(
    components: Components,
    weights: Weights,
    adapted: Adapter | None,
    prompts: Prompts,
    keys_N: jax.Array,
    count: int,
    temperature: float,
) -> tuple[Rollout, list[list[str]]]:
    """Samples `count` responses to each prompt, without verifying them.

    Args:
        components: the components of the run.
        weights: the generator's weights.
        adapted: adapters with leading axis N; None samples from the unadapted model.
        prompts: solver prompts of this process's problems.
        keys_N: one random key per problem, for the problems of all processes.
        count: M.
        temperature: 0 is greedy.

    Returns:
        The rollout [N, M, T], and the responses as text.
    """
    limit = components.config.max_answer_tokens
    responses_NM, rollout = sample_texts(components, weights, adapted, prompts, keys_N, count, limit, temperature)
    return rollout, responses_NM


def attempt(
    components: Components,
    weights: Weights,
    adapted: Adapter | None,
    tasks: Sequence[Problem],
    keys_N: jax.Array,
    count: int,
    temperature: float,
) -> Attempts:
    """Samples `count` responses to each of this process's problems, and verifies them.

    Args:
        components: the components of the run.
        weights: the generator's weights.
        adapted: adapters with leading axis N; None samples from the unadapted model.
        tasks: the problems of this process.
        keys_N: one random key per problem, for the problems of all processes.
        count: M.
        temperature: 0 is greedy.
    """
    prompts = components.dialogue.solver_prompts(tasks)
    rollout, responses_NM = respond(components, weights, adapted, prompts, keys_N, count, temperature)
    flat = [response for row in responses_NM for response in row]
    verdicts = components.dialogue.task.verify([task for task in tasks for _ in range(count)], flat)
    right = np.array([verdict is Verdict.RIGHT for verdict in verdicts], np.float32).reshape(len(tasks), count)
    # Processes that share a problem use one verdict: a verifier timeout on one of them would make their steps diverge.
    rows = components.feed.rows(len(keys_N))
    right = np.array(runtime.gather_rows(runtime.mine(rows, right.tolist()))[rows], np.float32)
    return Attempts(rollout, right, responses_NM)


def sample_texts(
    components: Components,
    weights: Weights,
    inner: Adapter | None,
    prompts: Prompts,
    keys_N: jax.Array,
    count: int,
    limit: int,
    temperature: float,
) -> tuple[list[list[str]], Rollout]:
    """Samples `count` completions of at most `limit` tokens for each prompt.

    Returns:
        The completions as text, and the rollout [N, M, T] with their log-probabilities at temperature 1.
    """
    size, feed = len(keys_N), components.feed
    announce(f"sampling of {size} x {count} completions ({prompts[0].shape[1]} + {limit} tokens)")
    drawn = generate.sample(
        components.solver,
        weights,
        inner,
        *feed.put(prompts, size),
        feed.spread(keys_N),
        num_samples=count,
        max_new_tokens=limit,
        temperature=temperature,
    )
    samples = feed.get(drawn, size)
    rollout = generate.rollout(prompts, samples)
    if temperature not in (0.0, 1.0):
        # The sampler reports the tempered policy; the ratio's numerator is the model, so its denominator must be too.
        announce(f"log-probabilities of {size} x {count} completions")
        logprobs = _logprobs(components.solver, weights, feed.put(rollout.text, size), inner)
        rollout = rollout._replace(logprobs_BT=feed.get(logprobs, size) * rollout.text.target_BT)
    return components.dialogue.read(samples), rollout


@functools.partial(jax.jit, static_argnames="solver")
def _logprobs(solver: Solver, weights: Weights, text: Text, inner: Adapter | None) -> jax.Array:
    """Log-probabilities of rows [N, M, T], each problem under its own adapter."""
    axes = (0, None if inner is None else 0)
    return jax.vmap(lambda rows, adapter: solver.logprobs(weights, rows, adapter), in_axes=axes)(text, inner)


def filled(batch: Sequence[Problem], size: int) -> list[Problem]:
    """Pads a batch to `size` by repeating its last problem, so that a smaller batch is not compiled separately."""
    return [*batch, *[batch[-1]] * (size - len(batch))]
