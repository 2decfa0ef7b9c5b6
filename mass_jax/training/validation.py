"""Measures whether rewards predict the effect of examples, for the model, the task and the inner loop of a run.

Shape suffixes: N problems, M examples per problem, J solutions per problem.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mass_jax import metagrad as mg
from mass_jax.llama import lora
from mass_jax.metagrad import signal
from mass_jax.method import adapt
from mass_jax.method.generate import SyntheticExamples
from mass_jax.method.models import Read, Solver, Weights
from mass_jax.method.outer import outer_loss
from mass_jax.method.rewards import MARGINAL, Reward, ScoreLoss
from mass_jax.method.text import Text
from mass_jax.tasks.base import Problem
from mass_jax.training.compiling import announced
from mass_jax.training.example_metrics import useful_examples
from mass_jax.training.inner_setting import InnerSetting
from mass_jax.training.rollout import Rollouts
from mass_jax.types import Adapter, PyTree


class Drawn(NamedTuple):
    """Examples on which settings are compared, drawn once.

    Attributes:
        problems: the problems.
        scores_NM: weight of each example in the inner loss; 0 for rejected ones.
        kept_NM: True for the examples that parsed and fit their rows.
        examples: examples in solver form, with what the blocks without inner adapters computed.
        adapters: fresh inner adapters.
        useful_NM: True for examples that the task knows to be useful; None if it cannot tell.
        attempt_keys_N: random keys of the attempts.
    """

    problems: Sequence[Problem]
    scores_NM: np.ndarray
    kept_NM: np.ndarray
    examples: Text | Read
    adapters: Adapter
    useful_NM: np.ndarray | None
    attempt_keys_N: jax.Array


def draw(
    rollouts: Rollouts,
    weights: Weights,
    problems: Sequence[Problem],
    *,
    num_examples: int,
    key: jax.Array,
    score: float,
) -> Drawn:
    """Writes examples for training problems, as a step of meta-training does.

    Args:
        rollouts: samples and adapts; every process handles all problems.
        weights: the generator's weights.
        problems: problems of the training side.
        num_examples: number of examples per problem, M.
        key: random key.
        score: weight of every accepted example.
    """
    write_keys_N = jax.random.split(jax.random.fold_in(key, 1), len(problems))
    synthetic, _ = rollouts.write_examples(weights, problems, write_keys_N, num_examples)
    useful_NM = useful_examples(rollouts.dialogue.task, problems, synthetic)
    return drawn(rollouts, weights, problems, synthetic, useful_NM, key, score)


def drawn(
    rollouts: Rollouts,
    weights: Weights,
    problems: Sequence[Problem],
    synthetic: SyntheticExamples,
    useful_NM: np.ndarray | None,
    key: jax.Array,
    score: float,
) -> Drawn:
    """Returns given examples as `Drawn`, with fresh adapters; see `draw`."""
    count = len(problems)
    adapter_keys_N, attempt_keys_N = (jax.random.split(jax.random.fold_in(key, i), count) for i in (2, 3))
    examples = rollouts.feed.put(synthetic.examples, count)
    return Drawn(
        problems,
        score * synthetic.kept_NM,
        synthetic.kept_NM > 0,
        read_rows(rollouts, weights, examples),
        rollouts.feed.place(rollouts.loop.init_adapters(adapter_keys_N)),
        useful_NM,
        attempt_keys_N,
    )


def validate_setting(
    rollouts: Rollouts,
    weights: Weights,
    drawn: Drawn,
    setting: InnerSetting,
    outer: str,
    num_attempts: int,
    options: signal.Options = signal.Options(),  # noqa: B008  frozen
    resamples: int = signal.RESAMPLES,
    reward: Reward = MARGINAL,
) -> mg.SignalReport:
    """Measures one inner optimizer on drawn examples.

    Settings that differ in learning rate or eps_root share their compiled programs. Finite differences and other
    precisions are those of the derivative, so they are not measured for another reward.

    Args:
        rollouts: samples and adapts; every process handles all problems.
        weights: the generator's weights.
        drawn: the examples.
        setting: the inner optimizer.
        outer: "gold", or "verifier": correct attempts of the adapted model, which differ between settings.
        num_attempts: number of attempts per problem for "verifier".
        options: what to measure.
        resamples: number of bootstrap resamples of tasks.
        reward: the reward to compare with the effects.
    """
    count = len(drawn.problems)
    if reward != MARGINAL:
        options = dataclasses.replace(options, finite_differences=False, precision=False)
    if outer == "gold":
        solutions, right_NJ = rollouts.dialogue.gold(drawn.problems), np.ones((count, 1), np.float32)
    else:
        adaptation, hyper = adaptation_of(rollouts, setting), (setting.rate, setting.eps_root)
        scores_NM = rollouts.feed.put(drawn.scores_NM, count)
        adapted = _adapt(adaptation, weights, hyper, drawn.adapters, scores_NM, drawn.examples)
        solutions, right_NJ, _ = rollouts.attempt(
            weights, adapted, drawn.problems, drawn.attempt_keys_N, num_attempts, rollouts.temperature
        )
    tasks = tasks_of(rollouts, weights, drawn, solutions.text, right_NJ)
    found = measure_setting(rollouts, weights, tasks, setting, options)
    if reward != MARGINAL:
        found = found._replace(
            rewards_NM=_other_rewards(rollouts, weights, tasks, setting, drawn.kept_NM, found, reward)
        )
    divisors_NM = np.ones_like(drawn.scores_NM) if reward.is_change else drawn.scores_NM
    return signal.summarize(
        found, divisors_NM, counted_NM=drawn.kept_NM, useful_NM=drawn.useful_NM, resamples=resamples
    )


def tasks_of(rollouts: Rollouts, weights: Weights, drawn: Drawn, solutions: Text, right_NJ: np.ndarray) -> signal.Tasks:
    """Returns drawn examples with solutions of their problems as the outer batch.

    Args:
        rollouts: samples and adapts.
        weights: the generator's weights.
        drawn: the examples.
        solutions: J solutions per problem, [N, J, T].
        right_NJ: 1 for solutions that count.
    """
    count, feed = len(drawn.problems), rollouts.feed
    text, right_NJ = feed.put((solutions, right_NJ), count)
    return signal.Tasks(
        lora.checked(drawn.adapters, batched=True).leaves,
        feed.put(drawn.scores_NM, count),
        drawn.examples,
        (read_rows(rollouts, weights, text), right_NJ),
    )


def measure_setting(
    rollouts: Rollouts, weights: Weights, tasks: signal.Tasks, setting: InnerSetting, options: signal.Options
) -> signal.Effects:
    """Measures the effects of the examples of given tasks under one inner optimizer.

    Args:
        rollouts: samples and adapts.
        weights: the generator's weights.
        tasks: adapters, scores, examples and (solutions, right_NJ), the rows as returned by `Solver.read`.
        setting: the inner optimizer.
        options: what to measure.

    Returns:
        The effects, on the host.
    """
    count, examples = tasks.weights_NM.shape
    hyper = (np.float32(setting.rate), np.float32(setting.eps_root))
    with announced(f"the effects of {count} x {examples} examples, {setting.optimizer}, K={setting.steps}"):
        found = signal.measure(adaptation_of(rollouts, setting), weights, hyper, tasks, options=options)
    # The rewards in float64 are on the host already.
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, np.ndarray) else rollouts.feed.get(leaf, count), found)


def _other_rewards(
    rollouts: Rollouts,
    weights: Weights,
    tasks: signal.Tasks,
    setting: InnerSetting,
    kept_NM: np.ndarray,
    found: signal.Effects,
    reward: Reward,
) -> np.ndarray:
    """Returns the rewards [N, M] that training would use with `reward`, on the host."""
    count, examples = kept_NM.shape
    hyper = (np.float32(setting.rate), np.float32(setting.eps_root))
    gradient_NM, kept_NM = rollouts.feed.put((-np.asarray(found.rewards_NM), kept_NM), count)
    with announced(f"the rewards {type(reward).__name__} of {count} x {examples} examples, {setting.optimizer}"):
        rewards_NM = _rewards(adaptation_of(rollouts, setting), reward, weights, hyper, tasks, gradient_NM, kept_NM)
    return np.asarray(rollouts.feed.get(rewards_NM, count))


@functools.partial(jax.jit, static_argnames=("adaptation", "reward"))
def _rewards(
    adaptation: signal.Adaptation,
    reward: Reward,
    weights: Weights,
    hyper: tuple[Any, Any],
    tasks: signal.Tasks,
    gradient_NM: jax.Array,
    kept_NM: jax.Array,
) -> jax.Array:
    """Computes rewards of the examples of all tasks, [N, M]."""

    def at(scores_NM: jax.Array) -> tuple[signal.Adaptation, Weights, tuple[Any, Any], signal.Tasks]:
        return adaptation, weights, hyper, tasks._replace(weights_NM=scores_NM)

    loss = ScoreLoss(lambda scores_NM: signal.losses(*at(scores_NM)), lambda scores_NM: -signal.rewards(*at(scores_NM)))
    return reward(loss, tasks.weights_NM, gradient_NM, kept_NM)


def adaptation_of(rollouts: Rollouts, setting: InnerSetting) -> signal.Adaptation:
    """Returns the inner loop of a setting, without its learning rate and eps_root."""
    loop = rollouts.loop
    build = _Build(loop.solver, setting.optimizer, loop.scale)
    return signal.Adaptation(build, setting.steps, loop.adjoint, loop.tasks_at_a_time)


def read_rows(rollouts: Rollouts, weights: Weights, text: Text) -> Text | Read:
    """Runs the blocks without inner adapters on rows [N, M, T]."""
    return _read(rollouts.solver, weights, text)


@dataclasses.dataclass(frozen=True)
class _Build:
    """Builds the losses of a problem under given weights, and the inner optimizer."""

    solver: Solver
    optimizer: str
    scale: float

    def __call__(
        self, weights: Weights, hyper: tuple[Any, Any]
    ) -> tuple[mg.WeightedLoss, Callable[..., jax.Array], Any]:
        def examples(leaves: PyTree, rows: Text | Read) -> jax.Array:
            return self.solver.completion_nll(weights, rows, Adapter(leaves, self.scale))

        def outer(leaves: PyTree, target: tuple[Text | Read, jax.Array]) -> jax.Array:
            return outer_loss(self.solver, weights, Adapter(leaves, self.scale), *target)

        return mg.WeightedLoss(examples), outer, adapt.inner_optimizer(self.optimizer, *hyper)


@functools.partial(jax.jit, static_argnames="solver")
def _read(solver: Solver, weights: Weights, text: Text) -> Text | Read:
    """Runs the blocks without inner adapters on rows [N, M, T]."""
    return jax.vmap(lambda rows: solver.read(weights, rows))(text)


@functools.partial(jax.jit, static_argnames="adaptation")
def _adapt(
    adaptation: signal.Adaptation,
    weights: Weights,
    hyper: tuple[Any, Any],
    adapters: Adapter,
    scores_NM: jax.Array,
    examples: Text | Read,
) -> Adapter:
    """Adapts to weighted examples; returns adapters with leading axis N."""
    loss, _, optimizer = adaptation.build(weights, hyper)

    def one(leaves: PyTree, scores_M: jax.Array, rows: Text | Read) -> PyTree:
        return mg.adapt(loss, leaves, scores_M, rows, optimizer=optimizer, num_steps=adaptation.num_steps).params

    leaves = lora.checked(adapters, batched=True).leaves
    return adapters.many(adaptation.over_tasks(one, leaves, scores_NM, examples))
