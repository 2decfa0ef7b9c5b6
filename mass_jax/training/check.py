"""Checks the reward signal at the first step of meta-training, and every `--signal_every` steps for the log.

Shape suffixes: N problems, M examples per problem.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from mass_jax import metagrad as mg
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.llama import lora
from mass_jax.metagrad import signal
from mass_jax.method import adapt, meta_step
from mass_jax.method.models import Solver, Weights
from mass_jax.method.outer import outer_loss
from mass_jax.method.text import Text
from mass_jax.training import rollout, validation
from mass_jax.training.compiling import announce
from mass_jax.training.components import Components
from mass_jax.types import Adapter, PyTree

MIN_PROBLEMS, MIN_EXAMPLES = 8, 4  # fewer say nothing about a correlation
FLAGS: Mapping[signal.Setting, str] = {
    "eps_root": "--inner_eps_root",
    "rate": "--inner_lr",
    "optimizer": "--inner_optimizer",
    "steps": "--inner_steps",
    "clipping": "a smaller --inner_lr",
    "precision": "--base_dtype=float32",
    "examples": "--num_examples",
}
LOGGED = {  # number of the report -> metric
    "leave_one_out/spearman": "signal/leave_one_out",
    "leave_one_out/sign": "signal/sign",
    "zero_sum_index": "signal/zero_sum_index",
    "gain": "signal/gain",
}


@dataclasses.dataclass(frozen=True)
class SignalCheck:
    """Compares the rewards of a training step with leaving each example out.

    The rewards, the scores and the attempts are those of the step, so that nothing else is sampled and the training
    does not change.

    Attributes:
        components: the components of the run.
        learner: the learner.
        label: name of the training in log lines.
    """

    components: Components
    learner: meta_step.Learner
    label: str

    def before(self, step: int, state: meta_step.MetaState, base: Any, batch: meta_step.TaskBatch) -> Any:
        """Measures the effects before the step, which donates its state; None if this step is not checked."""
        config = self.components.config
        if not (self._checks(step) or (config.signal_every and step % config.signal_every == 0)):
            return None
        announce(f"leave-one-out effects of {self.label}")
        weights = Weights(base, state.policy)
        scores_NM = rollout.scores_jit(self.learner.scorer, state.scorer, batch.scorer_texts)
        count = scores_NM.shape[1]
        keep_EM = np.concatenate([np.ones((1, count)), np.zeros((1, count)), 1 - np.eye(count)]).astype(np.float32)
        losses_EN = []
        for keep_M in keep_EM:
            changed_NM = scores_NM * keep_M
            adapted = rollout.adapt_jit(self.learner.loop, weights, batch.adapters, changed_NM, batch.examples)
            losses_EN.append(_losses(self.learner.solver, weights, adapted, batch.solutions.text, batch.right_NJ))
        return scores_NM, losses_EN, batch

    def after(self, step: int, measured: Any, output: meta_step.StepOutput) -> dict[str, float]:
        """Compares the effects with the rewards of the step, prints the check, and returns metrics to log.

        Raises:
            UserError: the signal is weak and --on_weak_signal=error.
        """
        if measured is None:
            return {}
        scores_NM, losses_EN, batch = measured
        own_NM, rewards_NM, *losses = self._gather(scores_NM, output.rewards_NM, *losses_EN)
        after_N, before_N, *without = losses
        effects = signal.Effects(before_N, after_N, rewards_NM, np.stack(without, 1) - after_N[:, None])
        report = signal.summarize(effects, own_NM)
        if self._checks(step):
            self._judge(report, scores_NM, batch)
        if not self.components.config.signal_every:
            return {}
        return {metric: report[name] for name, metric in LOGGED.items()}

    def _checks(self, step: int) -> bool:
        """Returns whether this step is judged: the first one, with enough problems and examples."""
        config = self.components.config
        enough = config.tasks_per_step >= MIN_PROBLEMS and config.num_examples >= MIN_EXAMPLES
        return step == 0 and enough and config.on_weak_signal != "ignore"

    def _judge(self, report: mg.SignalReport, scores_NM: jax.Array, batch: meta_step.TaskBatch) -> None:
        """Logs the numbers, the findings and the alternatives; raises with --on_weak_signal=error."""
        found = mg.findings(report)
        others = self._alternatives(scores_NM, batch) if found else {}
        if not runtime.is_first() and self.components.config.on_weak_signal != "error":
            return
        lines = describe(self.label, report, others)
        for line in lines:
            logging.log(logging.WARNING if found else logging.INFO, "%s", line)
        if found and self.components.config.on_weak_signal == "error":
            raise UserError(f"{lines[1]}; or pass --on_weak_signal=warn")

    def _alternatives(self, scores_NM: jax.Array, batch: meta_step.TaskBatch) -> dict[str, mg.SignalReport]:
        """Measures other inner optimizers on the problems of the first step; nothing on several processes."""
        if jax.process_count() > 1:
            return {}
        components = self.components
        weights = components.pretrained()  # those of the first step, whose own buffers are donated by now
        rows, solutions = (
            validation.read_rows(components.rollouts, weights, text) for text in (batch.examples, batch.solutions.text)
        )
        tasks = signal.Tasks(batch.adapters.leaves, scores_NM, rows, (solutions, batch.right_NJ))
        options = signal.Options(finite_differences=False, add_one=False, directions=0, precision=False)
        found = {}
        for setting in nearby(validation.InnerSetting.of(components.config, components.rollouts.loop)):
            effects = validation.measure_setting(components.rollouts, weights, tasks, setting, options)
            found[setting.label] = signal.summarize(effects, jax.device_get(scores_NM))
        return found

    def _gather(self, *arrays: jax.Array) -> list[np.ndarray]:
        """Returns the rows of all processes as NumPy arrays."""
        feed, count = self.components.rollouts.feed, arrays[0].shape[0]
        rows = feed.rows(count)
        own = zip(*(part.tolist() for part in feed.get(arrays, count)), strict=True)
        gathered = runtime.gather_rows(runtime.mine(rows, [list(row) for row in own]))
        return [np.array(column) for column in zip(*gathered, strict=True)]


def describe(label: str, report: mg.SignalReport, alternatives: Mapping[str, mg.SignalReport]) -> list[str]:
    """Returns three lines: the numbers, the weaknesses with the settings to change, and other settings.

    Args:
        label: name of the training.
        report: report of the setting in use.
        alternatives: reports of other settings on the same problems, by label.
    """
    found = mg.findings(report, alternatives)
    correlation = report.numbers["leave_one_out/spearman"]
    lines = [
        f"{label}: rewards of {report.tasks} problems: correlation with leave-one-out {correlation.value:.2f} "
        f"({correlation.low:.2f} to {correlation.high:.2f}), zero-sum index {report['zero_sum_index']:.3f}, problems "
        f"with signal {report['signal_share']:.2f}"
    ]
    if not found:
        return [*lines, f"{label}: the reward predicts the effect of the examples"]
    weak = ", ".join(f"{f.name} ({f.number} {f.value:.3g}, should be at least {f.limit:g})" for f in found)
    flags = dict.fromkeys(FLAGS[setting] for f in found for setting in f.settings)
    lines.append(f"{label}: weak reward: {weak}; change {' or '.join(list(flags)[:3])}")
    if alternatives:
        others = "; ".join(
            f"{name}: correlation {other['leave_one_out/spearman']:.2f}, zero-sum index {other['zero_sum_index']:.3f}"
            for name, other in alternatives.items()
        )
        lines.append(f"{label}: on the same problems, {others}")
    return lines


def nearby(setting: validation.InnerSetting) -> tuple[validation.InnerSetting, ...]:
    """Returns settings to compare a weak one with: greater eps_root, or smaller steps where there is none.

    >>> [other.eps_root for other in nearby(validation.InnerSetting("adam", 0.03, 1e-8, 2))]
    [1e-06, 0.0001, 0.01]
    """
    if adapt.has_eps_root(setting.optimizer):
        floor = max(setting.eps_root, 1e-12)
        return tuple(setting._replace(eps_root=float(f"{floor * factor:g}")) for factor in (1e2, 1e4, 1e6))
    return tuple(setting._replace(rate=setting.rate / factor) for factor in (2, 4))


@functools.partial(jax.jit, static_argnames="solver")
def _losses(solver: Solver, weights: Weights, adapted: Adapter, text: Text, right_NJ: jax.Array) -> jax.Array:
    """Returns the outer loss of each problem under its adapted adapter, [N]."""

    def one(leaves: PyTree, rows: Text, right_J: jax.Array) -> jax.Array:
        return outer_loss(solver, weights, adapted.one(leaves), rows, right_J)

    return jax.vmap(one)(lora.checked(adapted, batched=True).leaves, text, right_NJ)
