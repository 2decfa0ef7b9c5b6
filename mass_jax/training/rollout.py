"""Rollouts: encode prompts, sample completions, decode them and parse them.

Training, evaluation, qualitative examples and serving all sample through this module.

Shape suffixes: N problems, M samples per problem, T tokens.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from mass_jax import runtime
from mass_jax.llama import lora
from mass_jax.method import adapt, generate, score
from mass_jax.method.groups import over_tasks
from mass_jax.method.models import Solver, Weights
from mass_jax.method.text import Rollout, Text
from mass_jax.tasks.base import Problem, Task, Verdict
from mass_jax.training import samplers
from mass_jax.training.compiling import announced
from mass_jax.types import Adapter, PyTree

Prompts = tuple[np.ndarray, np.ndarray]
"""Right-padded tokens [N, T] and lengths [N]."""

scores_jit = jax.jit(score.scores, static_argnames=("trunk", "tasks_at_a_time"))
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


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Samples and adapts with given weights, and converts between problems, tokens and texts.

    Every method takes this process's problems, and one random key per problem for the problems of all processes.

    Attributes:
        loop: inner loop, with the solver.
        dialogue: encodes prompts, decodes and parses samples; holds the token limits.
        feed: moves the problems of this process to the mesh and back.
        temperature: sampling temperature of synthetic examples.
        sampler: draws the completions.
    """

    loop: adapt.LoraLoop
    dialogue: generate.Dialogue
    feed: runtime.Feed
    temperature: float
    sampler: samplers.RolloutSampler

    @property
    def solver(self) -> Solver:
        """The language model."""
        return self.loop.solver

    def on_every_process(self) -> "Rollouts":
        """Returns rollouts in which every process handles all problems."""
        return dataclasses.replace(self, feed=dataclasses.replace(self.feed, whole=True))

    def with_task(self, task: Task) -> "Rollouts":
        """Returns rollouts of another task."""
        return dataclasses.replace(self, dialogue=dataclasses.replace(self.dialogue, task=task))

    def write_examples(
        self, weights: Weights, tasks: Sequence[Problem], keys_N: jax.Array, count: int, instructed: bool = False
    ) -> tuple[generate.SyntheticExamples, Rollout]:
        """Writes and parses `count` synthetic examples for each problem.

        Args:
            weights: the generator's weights.
            tasks: the problems of this process.
            keys_N: one random key per problem, for the problems of all processes.
            count: M.
            instructed: whether to use the task's instructed prompts.

        Returns:
            The parsed examples, and the rollout [N, M, T] that they were parsed from.
        """
        texts_NM, rollout = self.write_texts(weights, tasks, keys_N, count, instructed)
        return self.dialogue.parse(tasks, texts_NM), rollout

    def write_texts(
        self, weights: Weights, tasks: Sequence[Problem], keys_N: jax.Array, count: int, instructed: bool = False
    ) -> tuple[list[list[str]], Rollout]:
        """Writes the texts of `write_examples` without parsing them."""
        prompts, limit = self.dialogue.generator_prompts(tasks, instructed), self.dialogue.max_example_tokens
        return self._sample(weights, None, prompts, keys_N, count, limit, self.temperature)

    def adapt_to_examples(self, weights: Weights, synthetic: generate.SyntheticExamples, keys_N: jax.Array) -> Adapter:
        """Adapts to examples as at test time, where every parsed example has weight 1.

        Returns:
            Adapted adapters, one per problem.
        """
        adapters = self.loop.init_adapters(keys_N)
        with announced(adaptation_name(synthetic.examples.tokens_BT.shape)):
            return adapt_jit(self.loop, weights, adapters, synthetic.kept_NM, synthetic.examples)

    def respond(
        self,
        weights: Weights,
        adapted: Adapter | None,
        prompts: Prompts,
        keys_N: jax.Array,
        count: int,
        temperature: float,
    ) -> tuple[Rollout, list[list[str]]]:
        """Samples `count` responses to each prompt, without verifying them.

        Args:
            weights: the generator's weights.
            adapted: adapters, one per problem; None samples from the unadapted model.
            prompts: solver prompts of this process's problems.
            keys_N: one random key per problem, for the problems of all processes.
            count: M.
            temperature: 0 is greedy.

        Returns:
            The rollout [N, M, T], and the responses as text.
        """
        limit = self.dialogue.max_answer_tokens
        responses_NM, rollout = self._sample(weights, adapted, prompts, keys_N, count, limit, temperature)
        return rollout, responses_NM

    def attempt(
        self,
        weights: Weights,
        adapted: Adapter | None,
        tasks: Sequence[Problem],
        keys_N: jax.Array,
        count: int,
        temperature: float,
    ) -> Attempts:
        """Samples `count` responses to each problem, and verifies them.

        Args:
            weights: the generator's weights.
            adapted: adapters, one per problem; None samples from the unadapted model.
            tasks: the problems of this process.
            keys_N: one random key per problem, for the problems of all processes.
            count: M.
            temperature: 0 is greedy.
        """
        prompts = self.dialogue.solver_prompts(tasks)
        rollout, responses_NM = self.respond(weights, adapted, prompts, keys_N, count, temperature)
        flat = [response for row in responses_NM for response in row]
        verdicts = self.dialogue.task.verify([task for task in tasks for _ in range(count)], flat)
        right = np.array([verdict is Verdict.RIGHT for verdict in verdicts], np.float32).reshape(len(tasks), count)
        # Processes that share a problem use one verdict: a verifier timeout on one of them would make their steps
        # diverge.
        rows = self.feed.rows(len(keys_N))
        right = np.array(runtime.gather_rows(runtime.mine(rows, right.tolist()))[rows], np.float32)
        return Attempts(rollout, right, responses_NM)

    def _sample(
        self,
        weights: Weights,
        inner: Adapter | None,
        prompts: Prompts,
        keys_N: jax.Array,
        count: int,
        limit: int,
        temperature: float,
    ) -> tuple[list[list[str]], Rollout]:
        """Samples completions of at most `limit` tokens; their log-probabilities are those at temperature 1."""
        size = len(keys_N)
        draw = samplers.Draw(prompts, keys_N, count, limit, temperature)
        with announced(sampling_name(size, count, (prompts[0].shape[1], limit), inner is not None)):
            samples = self.sampler(self.solver, weights, inner, self.feed, draw)
        rollout = generate.rollout(prompts, samples)
        native = self.sampler.is_native
        if temperature not in (0.0, 1.0) or (temperature and not native):
            # The sampler reports the tempered policy, or that of other arithmetic; the ratio's numerator is the model,
            # so its denominator must be too. Greedy completions are not trained on.
            put = self.feed.put(rollout.text, size)
            with announced(f"log-probabilities of {size} x {count} completions"):
                logprobs = self.feed.get(_logprobs(self.loop, weights, put, inner, limit), size)
            logprobs = logprobs * rollout.text.target_BT
            log_ratio = None if native or temperature != 1.0 else logprobs - rollout.logprobs_BT
            rollout = rollout._replace(logprobs_BT=logprobs, log_ratio_BT=log_ratio)
        return self.dialogue.read(samples), rollout


@functools.partial(jax.jit, static_argnames=("loop", "limit"))
def _logprobs(loop: adapt.LoraLoop, weights: Weights, text: Text, inner: Adapter | None, limit: int) -> jax.Array:
    """Log-probabilities of the generated tokens of rows [N, M, T], each problem under its own adapter."""

    def one(rows: Text, leaves: PyTree) -> jax.Array:
        adapter = None if inner is None else inner.one(leaves)
        return loop.solver.continuation_logprobs(weights, rows, limit, adapter)

    leaves = None if inner is None else lora.checked(inner, batched=True).leaves
    return over_tasks(one, loop.tasks_at_a_time, text, leaves)


def sampling_name(size: int, count: int, lengths: tuple[int, int], adapted: bool) -> str:
    """Returns the name of a program that samples; `lengths` are the tokens of prompts and of completions."""
    by = " by adapted models" if adapted else ""
    return f"sampling of {size} x {count} completions{by} ({lengths[0]} + {lengths[1]} tokens)"


def adaptation_name(shape: tuple[int, ...], scored: bool = False) -> str:
    """Returns the name of the program that adapts to examples of a shape [N, M, T], with scores or with weights 1."""
    return f"adaptation to {'scored ' if scored else ''}examples {shape}"


def scores_name(shape: tuple[int, ...]) -> str:
    """Returns the name of the program that scores texts of a shape [N, M, T]."""
    return f"scores of examples {shape}"


def filled(batch: Sequence[Problem], size: int) -> list[Problem]:
    """Pads a batch to `size` by repeating its last problem, so that a smaller batch is not compiled separately."""
    return [*batch, *[batch[-1]] * (size - len(batch))]
