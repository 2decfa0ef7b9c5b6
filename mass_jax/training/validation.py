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
from mass_jax.config import Config, nearest
from mass_jax.errors import UserError
from mass_jax.llama import lora
from mass_jax.metagrad import signal
from mass_jax.method import adapt
from mass_jax.method.models import Read, Solver, Weights
from mass_jax.method.outer import outer_loss
from mass_jax.method.text import Text
from mass_jax.tasks.base import Problem
from mass_jax.training.compiling import announce
from mass_jax.training.example_metrics import useful_examples
from mass_jax.training.rollout import Rollouts
from mass_jax.types import Adapter, PyTree


class InnerSetting(NamedTuple):
    """Inner optimizer to measure.

    Attributes:
        optimizer: key of `method.adapt.OPTIMIZERS`.
        rate: learning rate.
        eps_root: constant under the root of the second moment; ignored by optimizers without one.
        steps: number of inner steps K.
    """

    optimizer: str
    rate: float
    eps_root: float
    steps: int

    @classmethod
    def of(cls, config: Config, loop: adapt.LoraLoop) -> "InnerSetting":
        """Returns the setting of a run."""
        return cls(config.inner_optimizer, config.inner_lr, loop.eps_root, config.inner_steps)

    @property
    def label(self) -> str:
        """The setting in words.

        >>> InnerSetting("adam", 0.03, 1e-8, 2).label
        'adam 0.03, eps_root 1e-08, K=2'
        """
        eps_root = f", eps_root {self.eps_root:g}" if adapt.has_eps_root(self.optimizer) else ""
        return f"{self.optimizer} {self.rate:g}{eps_root}, K={self.steps}"


def with_setting(text: str, config: Config) -> Config:
    """Returns the settings of a run with another inner optimizer, OPTIMIZER:RATE[:EPS_ROOT[:STEPS]].

    Args:
        text: the inner optimizer; EPS_ROOT may be auto.
        config: the settings of the run, which fill missing values.

    Raises:
        UserError: the text has another form, or a value is invalid.

    >>> changed = with_setting("adam:0.03", Config(inner_eps_root="1e-6"))
    >>> changed.inner_optimizer, changed.inner_eps_root
    ('adam', '1e-6')
    """
    name, *values = text.strip().split(":")
    if name not in adapt.OPTIMIZERS:
        raise UserError(f"--settings: optimizer {name!r} is unknown; {nearest(name, adapt.OPTIMIZERS)}")
    try:
        rate, root, steps = (*values, *("", "", "")[len(values) :])
        changed: dict[str, Any] = {
            "inner_optimizer": name,
            "inner_lr": float(rate),
            "inner_eps_root": root or config.inner_eps_root,
            "inner_steps": int(steps or config.inner_steps),
        }
        return dataclasses.replace(config, **changed)
    except ValueError as error:
        raise UserError(
            f"--settings: {text!r} is not OPTIMIZER:RATE[:EPS_ROOT[:STEPS]], like adam:0.03:1e-6 ({error})"
        ) from None


def parse_setting(text: str, config: Config, auto: Callable[[], float]) -> InnerSetting:
    """Reads OPTIMIZER:RATE[:EPS_ROOT[:STEPS]]; missing values are those of the run.

    Args:
        text: the setting.
        config: the settings of the run.
        auto: returns the eps_root of auto; called only for an optimizer that has one.

    Raises:
        UserError: the text has another form, or a value is invalid.

    >>> parse_setting("adam:0.03:1e-6", Config(), auto=lambda: 0.01)
    InnerSetting(optimizer='adam', rate=0.03, eps_root=1e-06, steps=2)
    """
    changed = with_setting(text, config)
    eps_root = changed.given_eps_root
    if eps_root is None:
        eps_root = auto() if adapt.has_eps_root(changed.inner_optimizer) else adapt.DEFAULT_EPS_ROOT
    return InnerSetting(changed.inner_optimizer, changed.inner_lr, eps_root, changed.inner_steps)


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
    count = len(problems)
    write_keys_N, adapter_keys_N, attempt_keys_N = (
        jax.random.split(jax.random.fold_in(key, i), count) for i in (1, 2, 3)
    )
    synthetic, _ = rollouts.write_examples(weights, problems, write_keys_N, num_examples)
    examples = rollouts.feed.put(synthetic.examples, count)
    return Drawn(
        problems,
        score * synthetic.kept_NM,
        synthetic.kept_NM > 0,
        _read(rollouts.solver, weights, examples),
        rollouts.feed.place(rollouts.loop.init_adapters(adapter_keys_N)),
        useful_examples(rollouts.dialogue.task, problems, synthetic),
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
) -> mg.SignalReport:
    """Measures one inner optimizer on drawn examples.

    Settings that differ in learning rate or eps_root share their compiled programs.

    Args:
        rollouts: samples and adapts; every process handles all problems.
        weights: the generator's weights.
        drawn: the examples.
        setting: the inner optimizer.
        outer: "gold", or "verifier": correct attempts of the adapted model, which differ between settings.
        num_attempts: number of attempts per problem for "verifier".
        options: what to measure.
        resamples: number of bootstrap resamples of tasks.
    """
    count = len(drawn.problems)
    feed = rollouts.feed
    scores_NM = feed.put(drawn.scores_NM, count)
    if outer == "gold":
        solutions, right_NJ = rollouts.dialogue.gold(drawn.problems), np.ones((count, 1), np.float32)
    else:
        adaptation, hyper = adaptation_of(rollouts, setting), (setting.rate, setting.eps_root)
        adapted = _adapt(adaptation, weights, hyper, drawn.adapters, scores_NM, drawn.examples)
        solutions, right_NJ, _ = rollouts.attempt(
            weights, adapted, drawn.problems, drawn.attempt_keys_N, num_attempts, rollouts.temperature
        )
    text, right_NJ = feed.put((solutions.text, right_NJ), count)
    tasks = signal.Tasks(
        lora.checked(drawn.adapters, batched=True).leaves,
        scores_NM,
        drawn.examples,
        (_read(rollouts.solver, weights, text), right_NJ),
    )
    found = measure_setting(rollouts, weights, tasks, setting, options)
    return signal.summarize(
        found, drawn.scores_NM, counted_NM=drawn.kept_NM, useful_NM=drawn.useful_NM, resamples=resamples
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
    announce(f"the effects of {count} x {examples} examples, {setting.optimizer}, K={setting.steps}")
    hyper = (np.float32(setting.rate), np.float32(setting.eps_root))
    found = signal.measure(adaptation_of(rollouts, setting), weights, hyper, tasks, options=options)
    # The rewards in float64 are on the host already.
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, np.ndarray) else rollouts.feed.get(leaf, count), found)


def adaptation_of(rollouts: Rollouts, setting: InnerSetting) -> signal.Adaptation:
    """Returns the inner loop of a setting, without its learning rate and eps_root."""
    loop = rollouts.loop
    return signal.Adaptation(_Build(loop.solver, setting.optimizer, loop.scale), setting.steps, loop.adjoint)


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

    return adapters.many(jax.vmap(one)(lora.checked(adapters, batched=True).leaves, scores_NM, examples))
