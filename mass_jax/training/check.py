"""Checks the reward signal at the first steps of meta-training, and every `--signal_every` steps for the log.

Shape suffixes: N problems, M examples per problem, E evaluations.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from mass_jax import metagrad as mg
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.llama import lora
from mass_jax.metagrad import signal
from mass_jax.method import learning, meta_step, rejected
from mass_jax.method.adapt import LoraLoop
from mass_jax.method.groups import over_tasks
from mass_jax.method.models import Weights
from mass_jax.method.outer import outer_loss
from mass_jax.method.text import Text, TooLong
from mass_jax.tasks.base import Problem
from mass_jax.training import rollout, validation
from mass_jax.training.check_advice import describe, nearby, replaces_attempts
from mass_jax.training.compiling import announced
from mass_jax.training.components import Components
from mass_jax.training.inner_setting import InnerSetting
from mass_jax.types import Adapter, Params, PyTree

MIN_PROBLEMS, MIN_EXAMPLES = 8, 4  # fewer say nothing about a correlation
LOGGED = {  # number of the report -> metric
    "leave_one_out/spearman": "signal/leave_one_out",
    "leave_one_out/sign": "signal/sign",
    "zero_sum_index": "signal/zero_sum_index",
    "gain": "signal/gain",
}
_LEAVE_ONE_OUT_ONLY = signal.Options(finite_differences=False, add_one=False, directions=0, precision=False)


class Measured(NamedTuple):
    """Outer losses of a step before its update.

    Attributes:
        tasks: the problems that were measured, of all processes.
        batch: the same on the mesh, with their examples and solutions.
        scores_NM: scores of their examples.
        losses_EN: outer losses with all examples, with none, and without each example.
    """

    tasks: Sequence[Problem]
    batch: meta_step.TaskBatch
    scores_NM: jax.Array
    losses_EN: tuple[jax.Array, ...]


class Compared(NamedTuple):
    """Rewards and effects of a step, on the host.

    Attributes:
        effects: the rewards, and the effects in nats per token.
        weights_NM: numbers by which the effects are divided to have the unit of the rewards.
        parsed_NM: True for the examples that count.
    """

    effects: signal.Effects
    weights_NM: np.ndarray
    parsed_NM: np.ndarray

    def report(self) -> mg.SignalReport:
        """Returns the summary over the examples that parsed."""
        return signal.summarize(self.effects, self.weights_NM, counted_NM=self.parsed_NM)


@dataclasses.dataclass
class SignalCheck:
    """Compares the rewards of training steps with leaving each example out.

    The rewards, the scores and the attempts are those of the steps, so that nothing else is sampled and the training
    does not change. The first steps with at least 8 problems together are judged, anew if training was interrupted
    among them. The steps of `--signal_every` are only logged, on at most 8 problems each (or one per device).

    Attributes:
        components: the components of the run.
        learner: the learner.
        label: name of the training in log lines.
    """

    components: Components
    learner: meta_step.Learner
    label: str
    # The steps to judge together, known from the first call on, and what was measured in them so far.
    _judged: range | None = dataclasses.field(default=None, init=False)
    _steps: list[tuple[Measured, Compared]] = dataclasses.field(default_factory=list, init=False)

    def before(
        self,
        step: int,
        state: meta_step.MetaState,
        base: Params,
        tasks: Sequence[Problem],
        batch: meta_step.TaskBatch,
    ) -> Measured | None:
        """Measures the effects before the step, which donates its state; None if this step is not measured.

        Args:
            step: index of the step.
            state: the state before it.
            base: the base weights.
            tasks: problems of the step, of all processes.
            batch: the same on the mesh.

        Raises:
            UserError: the run has too few problems or examples for the check, and --on_weak_signal=error.
        """
        if self._judged is None:
            self._judged = self._steps_to_judge(step)
        if step not in self._judged:
            if not self._is_logged(step):
                return None
            axis, count = self.components.rollouts.feed.mesh.shape["data"], len(batch.right_NJ)
            count = min(count, math.ceil(MIN_PROBLEMS / axis) * axis)
            tasks, batch = tasks[:count], _first(batch, count)
        with announced(f"leave-one-out effects of {self.label}"):
            return self._effects(state, base, tasks, batch)

    def _effects(
        self, state: meta_step.MetaState, base: Params, tasks: Sequence[Problem], batch: meta_step.TaskBatch
    ) -> Measured:
        """Measures the effect of leaving each example out."""
        weights = learning.weights_of(base, state)
        loop = self.learner.loop
        scores_NM = rollout.scores_jit(self.learner.scorer, state.scorer, batch.scorer_texts, loop.tasks_at_a_time)
        count = scores_NM.shape[1]
        keep_EM = np.concatenate([np.ones((1, count)), np.zeros((1, count)), 1 - np.eye(count)]).astype(np.float32)
        losses_EN = []
        for keep_M in keep_EM:
            changed_NM = scores_NM * keep_M
            adapted = rollout.adapt_jit(loop, weights, batch.adapters, changed_NM, batch.examples)
            losses_EN.append(_losses(loop, weights, adapted, batch.solutions.text, batch.right_NJ))
        return Measured(tasks, batch, scores_NM, tuple(losses_EN))

    def after(self, step: int, measured: Measured | None, output: meta_step.StepOutput) -> dict[str, float]:
        """Compares the effects with the rewards of the step, judges the first steps, and returns metrics to log.

        Raises:
            UserError: the signal is weak and --on_weak_signal=error.
        """
        if measured is None:
            return {}
        compared = self._compared(measured, output.rewards_NM)
        judged = self._judged or range(0)
        if step in judged:
            self._steps.append((measured, compared))
        if self._steps and step == judged[-1]:
            self._judge()
            self._steps.clear()
        if not self._is_logged(step):
            return {}
        report = compared.report()
        return {metric: report[name] for name, metric in LOGGED.items()}

    def _is_logged(self, step: int) -> bool:
        """Returns whether the metrics of a step include the comparison."""
        every = self.components.config.signal_every
        return every > 0 and step % every == 0

    def _steps_to_judge(self, start: int) -> range:
        """Returns the steps to judge together; if there are none, logs why, or raises with --on_weak_signal=error."""
        config = self.components.config
        steps = math.ceil(MIN_PROBLEMS / config.tasks_per_step)
        if config.on_weak_signal == "ignore":
            return range(0)
        if config.num_examples < MIN_EXAMPLES:
            reason = f"--num_examples={config.num_examples} is less than {MIN_EXAMPLES}"
        elif start >= steps:
            self._log(f"the reward is not checked, since training resumes at step {start}")
            return range(0)
        elif start + steps > config.steps:
            total = (config.steps - start) * config.tasks_per_step
            reason = f"--steps={config.steps} leaves {total} problems, less than {MIN_PROBLEMS}"
        else:
            return range(start, start + steps)
        if config.on_weak_signal == "error":
            raise UserError(
                f"{self.label}: the reward cannot be checked: {reason}; raise it or pass --on_weak_signal=warn"
            )
        self._log(f"the reward is not checked: {reason}")
        return range(0)

    def _log(self, line: str) -> None:
        """Logs a line on the first process."""
        if runtime.is_first():
            logging.info("%s: %s", self.label, line)

    def _compared(self, measured: Measured, rewards_NM: jax.Array) -> Compared:
        """Returns the rewards and effects of the measured problems of all processes."""
        is_parsed_NM = rejected.is_parsed(measured.batch.examples)
        scores_NM, parsed_NM, *losses = self._gather(measured.scores_NM, is_parsed_NM, *measured.losses_EN)
        after_N, before_N, *without = losses
        own_NM = self._gather(rewards_NM)[0][: len(after_N)]
        effects = signal.Effects(before_N, after_N, own_NM, np.stack(without, 1) - after_N[:, None])
        divisors_NM = np.ones_like(scores_NM) if self.learner.reward.is_change else scores_NM
        return Compared(effects, divisors_NM, parsed_NM)

    def _judge(self) -> None:
        """Logs the numbers, the findings and the alternatives; raises with --on_weak_signal=error."""
        config = self.components.config
        report = joined([compared for _, compared in self._steps]).report()
        found = mg.findings(report)
        others = self._alternatives(found) if found else {}
        solved_N = [any(right_J) for measured, _ in self._steps for right_J in self._gather(measured.batch.right_NJ)[0]]
        if not runtime.is_first() and config.on_weak_signal != "error":
            return
        unsolved_share = 1 - sum(solved_N) / len(solved_N)
        gold = self.learner.objective.gold
        lines = describe(self.label, report, others, config, gold=gold, unsolved_share=unsolved_share)
        for line in lines:
            logging.log(logging.WARNING if found else logging.INFO, "%s", line)
        if found and config.on_weak_signal == "error":
            raise UserError(f"{lines[1]}; or pass --on_weak_signal=warn")

    def _alternatives(self, found: Sequence[signal.Finding]) -> dict[str, mg.SignalReport]:
        """Measures the marginal reward with other inner optimizers on the judged problems and their scores.

        Uses the weights before training; measures nothing on several processes. Attempts that are all correct or all
        incorrect are replaced by gold solutions.
        """
        if jax.process_count() > 1:
            return {}
        rollouts, weights = self.components.rollouts, start_weights(self.components)
        replaced = replaces_attempts(found, gold=self.learner.objective.gold)
        try:
            tasks = [self._tasks(weights, measured, replaced) for measured, _ in self._steps]
        except TooLong:  # a gold solution
            return {}
        reports = {}
        for setting in nearby(InnerSetting.of(self.components.config, rollouts.loop), slower=replaced):
            parts = []
            for one, (measured, compared) in zip(tasks, self._steps, strict=True):
                effects = validation.measure_setting(rollouts, weights, one, setting, _LEAVE_ONE_OUT_ONLY)
                parts.append(Compared(effects, np.asarray(measured.scores_NM), compared.parsed_NM))
            reports[setting.label] = joined(parts).report()
        return reports

    def _tasks(self, weights: Weights, measured: Measured, replaced: bool) -> signal.Tasks:
        """Returns the problems of a step, with gold solutions in place of the attempts if they are replaced.

        Raises:
            TooLong: a gold solution does not fit.
        """
        rollouts, batch = self.components.rollouts, measured.batch
        text, right_NJ = batch.solutions.text, batch.right_NJ
        if replaced:
            text = rollouts.feed.put(rollouts.dialogue.gold(measured.tasks).text, len(right_NJ))
            right_NJ = jnp.ones((len(right_NJ), 1), right_NJ.dtype)
        examples, solutions = (validation.read_rows(rollouts, weights, rows) for rows in (batch.examples, text))
        return signal.Tasks(batch.adapters.leaves, measured.scores_NM, examples, (solutions, right_NJ))

    def _gather(self, *arrays: jax.Array) -> list[np.ndarray]:
        """Returns the rows of all processes as NumPy arrays."""
        feed, count = self.components.rollouts.feed, arrays[0].shape[0]
        rows = feed.rows(count)
        own = zip(*(part.tolist() for part in feed.get(arrays, count)), strict=True)
        gathered = runtime.gather_rows(runtime.mine(rows, [list(row) for row in own]))
        return [np.array(column) for column in zip(*gathered, strict=True)]


def joined(parts: Sequence[Compared]) -> Compared:
    """Returns the problems of several steps as one comparison."""
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def start_weights(components: Components) -> Weights:
    """Returns the pretrained weights without copying the parameters, for use where nothing is donated."""
    if components.rollouts.solver.generator == "full":
        return Weights({}, components.model.params)
    return components.pretrained()


@functools.partial(jax.jit, static_argnames="count")
def _first(batch: meta_step.TaskBatch, count: int) -> meta_step.TaskBatch:
    """Returns the first problems of a batch."""
    return jax.tree.map(lambda leaf: leaf[:count], batch)


@functools.partial(jax.jit, static_argnames="loop")
def _losses(loop: LoraLoop, weights: Weights, adapted: Adapter, text: Text, right_NJ: jax.Array) -> jax.Array:
    """Returns the outer loss of each problem under its adapted adapter, [N]."""

    def one(leaves: PyTree, rows: Text, right_J: jax.Array) -> jax.Array:
        return outer_loss(loop.solver, weights, adapted.one(leaves), rows, right_J)

    return over_tasks(one, loop.tasks_at_a_time, lora.checked(adapted, batched=True).leaves, text, right_NJ)
