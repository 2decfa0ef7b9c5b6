"""Compares estimators of the meta-gradient with the exact one: time, memory, agreement, and leave-one-out.

Shape suffixes: N problems, M examples per problem.
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from mass_jax import metagrad as mg
from mass_jax.config import nearest
from mass_jax.errors import UserError
from mass_jax.metagrad import signal
from mass_jax.metagrad.signal import correlations
from mass_jax.metagrad.signal.correlations import Interval
from mass_jax.method.models import Weights
from mass_jax.training import validation
from mass_jax.training.compiling import announced
from mass_jax.training.estimator_runs import run_adjoints
from mass_jax.training.inner_setting import InnerSetting
from mass_jax.training.rollout import Rollouts

EXACT = "exact"
FORMS = {
    "first_order": "first_order",
    "truncated": "truncated:STEPS",
    "t1t2": "t1t2",
    "sama": "sama",
    "evolution": "evolution:PAIRS[:SIGMA]",
}
_LEAVE_ONE_OUT = "leave_one_out/spearman"


class EstimatorRow(NamedTuple):
    """One estimator, measured with one inner optimizer.

    Attributes:
        adjoint: the adjoint, as in Python.
        seconds: wall-clock time of the meta-gradients of all problems, median over the repetitions.
        times_exact: time in units of that of the exact meta-gradient, median over the repetitions.
        temp_bytes: temporaries of the compiled program for all problems, per device.
        not_finite: number of problems whose meta-gradient or effects are not finite; they are left out below.
        numbers: means over problems with their intervals. `cosine`: cosine to the exact meta-gradient; `pearson`: the
            same after subtracting the mean of each problem, as the normalization of rewards does; `norm_ratio`: norm
            divided by that of the exact one; `leave_one_out`: Spearman correlation of the reward with the effect of
            leaving the example out; `difference`: that correlation minus that of the exact meta-gradient, paired by
            problem; `reward_auc`: only if the task knows which examples are useful.
    """

    adjoint: str
    seconds: float
    times_exact: float
    temp_bytes: int
    not_finite: int
    numbers: Mapping[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """Returns the row for JSON; numbers that are not finite become None."""
        numbers = {name: interval.to_dict() for name, interval in self.numbers.items()}
        return self._asdict() | {"numbers": numbers}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "EstimatorRow":
        """Reads a row from `to_dict`."""
        numbers = {name: Interval.from_dict(interval) for name, interval in fields["numbers"].items()}
        return cls(**{**fields, "numbers": numbers})


def parse_estimator(text: str, rate: float) -> mg.Adjoint:
    """Reads the name of an estimator.

    Args:
        text: first_order, truncated:STEPS, t1t2, sama or evolution:PAIRS[:SIGMA].
        rate: learning rate of the inner optimizer at its last step.

    Raises:
        UserError: the name or a value is invalid.

    >>> parse_estimator("evolution:8", rate=0.2)
    EvolutionStrategies(pairs=8, sigma=0.1, key=0)
    """
    name, *values = text.strip().split(":")
    if name not in FORMS:
        raise UserError(f"--estimators: {name!r} is unknown; {nearest(name, FORMS)}")
    try:
        match name, values:
            case "first_order", []:
                return mg.FirstOrder()
            case "truncated", [steps]:
                return mg.Truncated(int(steps))
            case "t1t2", []:
                return mg.T1T2(rate)
            case "sama", []:
                return mg.SAMA()
            case "evolution", [pairs]:
                return mg.EvolutionStrategies(int(pairs))
            case "evolution", [pairs, sigma]:
                return mg.EvolutionStrategies(int(pairs), float(sigma))
        raise ValueError("wrong number of values")
    except ValueError as error:
        raise UserError(f"--estimators: {text.strip()!r} is not {FORMS[name]} ({error})") from None


def estimators_of(texts: Sequence[str], setting: InnerSetting) -> dict[str, mg.Adjoint]:
    """Returns the adjoints to measure by name, the exact one first, without truncations that keep all steps.

    Args:
        texts: estimators, in the form of `parse_estimator`.
        setting: the inner optimizer.

    Raises:
        UserError: an estimator is invalid.
    """
    found: dict[str, mg.Adjoint] = {EXACT: mg.WeightedMixedMode()}
    for text in texts:
        if text.strip() == "t1t2" and not setting.last_rate:
            logging.info("t1t2 is zero, as is the learning rate at the last step; not measured")
            continue
        adjoint = parse_estimator(text, setting.last_rate)
        if isinstance(adjoint, mg.Truncated) and adjoint.steps >= setting.steps:
            logging.info("%s is exact with K=%d; not measured", text.strip(), setting.steps)
            continue
        found[text.strip()] = adjoint
    return found


def compare(
    rollouts: Rollouts,
    weights: Weights,
    drawn: validation.Drawn,
    setting: InnerSetting,
    adjoints: Mapping[str, mg.Adjoint],
    *,
    key: jax.Array,
    repeats: int,
    poll: Callable[[], None] = lambda: None,
) -> dict[str, EstimatorRow]:
    """Measures estimators with one inner optimizer, on the loss of gold solutions.

    Args:
        rollouts: samples and adapts; every process handles all problems.
        weights: the generator's weights.
        drawn: the examples.
        setting: the inner optimizer.
        adjoints: from `estimators_of`.
        key: random key of evolution strategies, split by problem.
        repeats: number of timed runs of each estimator.
        poll: called between programs; it may raise.

    Returns:
        The rows by name.
    """
    solutions = rollouts.dialogue.gold(drawn.problems).text
    right_NJ = np.ones((len(drawn.problems), 1), np.float32)
    tasks, get = validation.tasks_of(rollouts, weights, drawn, solutions, right_NJ), rollouts.feed.get
    exact = dataclasses.replace(validation.adaptation_of(rollouts, setting), adjoint=adjoints[EXACT])
    hyper = (np.float32(setting.rate), np.float32(setting.eps_root))
    measured = run_adjoints(exact, weights, hyper, tasks, adjoints, key=key, repeats=repeats, poll=poll)
    poll()
    options = signal.Options(finite_differences=False, add_one=False, directions=0, precision=False)
    with announced(f"leave-one-out, {setting.optimizer}, K={setting.steps}, {len(drawn.problems)} problems"):
        found = signal.measure(exact, weights, hyper, tasks, options=options)
    effects = jax.tree.map(lambda leaf: get(leaf, len(drawn.problems)), found)
    exact_NM = get(measured[EXACT].rewards_NM, len(drawn.problems))
    rows = {}
    for name, each in measured.items():
        numbers, not_finite = agreement(effects, get(each.rewards_NM, len(drawn.problems)), exact_NM, drawn)
        ratios = [mine / base for mine, base in zip(each.seconds, measured[EXACT].seconds, strict=False)]
        rows[name] = EstimatorRow(
            repr(adjoints[name]),
            statistics.median(each.seconds),
            statistics.median(ratios),
            each.temp_bytes,
            not_finite,
            numbers,
        )
    return rows


def agreement(
    effects: signal.Effects, rewards_NM: np.ndarray, exact_NM: np.ndarray, drawn: validation.Drawn
) -> tuple[dict[str, Interval], int]:
    """Compares rewards with the exact ones and with leave-one-out.

    Args:
        effects: measured effects of the examples.
        rewards_NM: rewards of an estimator.
        exact_NM: rewards of the exact meta-gradient.
        drawn: the examples; rejected ones do not count.

    Returns:
        The numbers of `EstimatorRow`, and the number of problems whose rewards or effects are not finite.
    """
    mine, base = (
        signal.summarize(
            effects._replace(rewards_NM=each), drawn.scores_NM, counted_NM=drawn.kept_NM, useful_NM=drawn.useful_NM
        )
        for each in (rewards_NM, exact_NM)
    )
    finite_N1 = (np.isfinite(rewards_NM) & np.isfinite(exact_NM)).all(-1, keepdims=True)
    counted_NM = drawn.kept_NM & finite_N1
    left_NM, right_NM = (np.where(counted_NM, np.asarray(each, float), 0) for each in (rewards_NM, exact_NM))
    norms = np.linalg.norm(left_NM, axis=-1), np.linalg.norm(right_NM, axis=-1)
    of_mine_N, of_base_N = (np.asarray(report.per_task[_LEAVE_ONE_OUT], float) for report in (mine, base))
    per_problem = {
        "cosine": correlations.ratio((left_NM * right_NM).sum(-1), norms[0] * norms[1]),
        "pearson": correlations.pearson(left_NM, right_NM, counted_NM),
        "norm_ratio": correlations.ratio(*norms),
        "leave_one_out": of_mine_N,
        "difference": of_mine_N - of_base_N,
    }
    picks_RN = correlations.resample(len(rewards_NM), signal.RESAMPLES, seed=0)
    numbers = {name: correlations.mean_over_tasks(values_N, picks_RN) for name, values_N in per_problem.items()}
    if "reward_auc" in mine.numbers:
        numbers["reward_auc"] = mine.numbers["reward_auc"]
    return numbers, mine.not_finite
