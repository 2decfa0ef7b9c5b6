"""Summary of measured effects: how well the rewards predict them, per task and over all tasks.

Shape suffixes: N tasks, M examples per task.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mass_jax.metagrad.signal import correlations
from mass_jax.metagrad.signal.correlations import Interval
from mass_jax.metagrad.signal.effects import Effects

RESAMPLES = 2000
KINDS = {
    "leave_one_out": "leave_one_out_NM",
    "add_one": "add_one_NM",
    "finite_difference": "finite_difference_NM",
}


@dataclasses.dataclass(frozen=True)
class SignalReport:
    """Numbers that tell whether rewards predict the effects of examples.

    A reward is a derivative, so effects are divided by the weight that is removed or added.

    Names of the numbers, where KIND is `leave_one_out`, `add_one` or `finite_difference`:

    - `KIND/spearman`, `KIND/pearson`: correlation of rewards and effects within a task, averaged over the tasks in
      which neither is constant.
    - `KIND/pooled_spearman`, `KIND/pooled_pearson`: the same over the examples of all tasks together.
    - `KIND/sign`: share of examples whose reward has the sign of the effect.
    - `zero_sum_index`: sum over tasks of |sum_i w_i r_i|, divided by that of sum_i |w_i r_i|. If it is 0, the rewards
      of a task only redistribute: the average example earns nothing, however much adaptation helps.
    - `signal_share`: share of tasks whose rewards are finite and not all equal.
    - `spread`: root of the mean variance within tasks, divided by the root mean square of the rewards.
    - `metasmoothness`: in [-1, 1]; 1 if the adapted parameters move linearly with the weights.
    - `cosine_float64`, `cosine_bfloat16`: cosine of the rewards of a task with those in float64, and of those with
      bfloat16 base weights with the rewards.
    - `reward_auc`, `leave_one_out_auc`: probability that a useful example has a greater reward (effect) than another
      example of the same task.
    - `loss_before`, `loss_after`, `gain`: outer loss before and after adaptation, and the difference.
    - `reward_mean`, `reward_std`: mean reward, and its standard deviation within a task.

    Attributes:
        tasks: number of tasks.
        examples: number of examples that count.
        not_finite: number of tasks whose rewards or effects are not finite; they count as tasks without signal and are
            left out of the other numbers.
        numbers: each number with its interval over tasks.
        per_task: values of each task by name; None where a task does not have the number.
    """

    tasks: int
    examples: int
    not_finite: int
    numbers: Mapping[str, Interval]
    per_task: Mapping[str, tuple[float | None, ...]]

    def __getitem__(self, name: str) -> float:
        """Returns the value of a number; NaN if it was not measured."""
        return self.numbers[name].value if name in self.numbers else math.nan

    def to_json(self) -> str:
        """Returns the report as JSON; numbers that are not finite become null."""
        fields = dataclasses.asdict(self) | {
            "numbers": {name: interval.to_dict() for name, interval in self.numbers.items()}
        }
        return json.dumps(fields, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "SignalReport":
        """Reads a report written by `to_json`."""
        fields = json.loads(text)
        numbers = {name: Interval.from_dict(interval) for name, interval in fields["numbers"].items()}
        per_task = {name: tuple(values) for name, values in fields["per_task"].items()}
        return cls(**fields | {"numbers": numbers, "per_task": per_task})


def summarize(
    effects: Effects,
    weights_NM: Any,
    *,
    counted_NM: Any = None,
    useful_NM: Any = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> SignalReport:
    """Compares rewards with effects.

    Args:
        effects: from `effects`.
        weights_NM: the weights at which they were measured.
        counted_NM: True for the examples that count; all by default. The signal share always counts all examples,
            because rewards are normalized over all examples of a task.
        useful_NM: True for examples that the caller knows to be useful; None leaves out the AUCs.
        resamples: number of bootstrap resamples of tasks.
        seed: random seed of the resampling.

    Returns:
        The `SignalReport`.
    """
    found: Any = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(effects))
    weights_NM = np.asarray(weights_NM, np.float64)
    rewards_NM = found.rewards_NM
    finite_N = np.isfinite(rewards_NM).all(-1) & np.isfinite(found.leave_one_out_NM).all(-1)
    finite_N &= np.isfinite(found.before_N) & np.isfinite(found.after_N)
    counted_NM = np.ones(rewards_NM.shape, bool) if counted_NM is None else np.asarray(counted_NM, bool)
    counted_NM = counted_NM & finite_N[:, None]
    picks_RN = correlations.resample(len(rewards_NM), resamples, seed)
    clean = jax.tree.map(lambda leaf: np.where(np.isfinite(leaf), leaf, 0.0), found)
    clean = clean._replace(
        leave_one_out_NM=_per_weight(clean.leave_one_out_NM, weights_NM),
        add_one_NM=None if clean.add_one_NM is None else _per_weight(clean.add_one_NM, weights_NM),
    )
    per_task = _per_task(clean, found, counted_NM, finite_N)
    numbers = {name: correlations.mean_over_tasks(values, picks_RN) for name, values in per_task.items()}
    numbers |= _pooled(clean, weights_NM, counted_NM, picks_RN)
    if useful_NM is not None:
        useful_NM = np.asarray(useful_NM, bool)
        for name, values_NM in (("reward_auc", clean.rewards_NM), ("leave_one_out_auc", clean.leave_one_out_NM)):
            pairs = correlations.concordance(values_NM, useful_NM, counted_NM)
            numbers[name] = correlations.ratio_of_sums(*pairs, picks_RN)
            per_task[name] = correlations.ratio(*pairs)
    return SignalReport(
        tasks=len(rewards_NM),
        examples=int(counted_NM.sum()),
        not_finite=int((~finite_N).sum()),
        numbers=numbers,
        per_task={name: tuple(map(_finite, values.tolist())) for name, values in per_task.items()},
    )


def _per_task(clean: Any, found: Any, counted_NM: np.ndarray, finite_N: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the numbers that each task has by itself, [N]; NaN where a task does not have one."""
    rewards_NM = clean.rewards_NM
    values: dict[str, np.ndarray] = {}
    for kind, field in KINDS.items():
        effect_NM = getattr(clean, field)
        if effect_NM is not None:
            values[f"{kind}/spearman"] = correlations.spearman(rewards_NM, effect_NM, counted_NM)
            values[f"{kind}/pearson"] = correlations.pearson(rewards_NM, effect_NM, counted_NM)
            values[f"{kind}/sign"] = correlations.sign_agreement(rewards_NM, effect_NM, counted_NM)
    values["signal_share"] = (finite_N & (rewards_NM.max(-1) > rewards_NM.min(-1))).astype(float)
    if found.metasmoothness_ND is not None:
        values["metasmoothness"] = _mean_of_finite(found.metasmoothness_ND)
    for name, other in (("cosine_float64", clean.rewards_float64_NM), ("cosine_bfloat16", clean.rewards_bfloat16_NM)):
        if other is not None:
            norms_N = np.linalg.norm(rewards_NM, axis=-1) * np.linalg.norm(other, axis=-1)
            values[name] = correlations.ratio((rewards_NM * other).sum(-1), norms_N)
    outside = {"loss_before": found.before_N, "loss_after": found.after_N, "gain": found.before_N - found.after_N}
    values |= {name: np.where(finite_N, losses_N, np.nan) for name, losses_N in outside.items()}
    count_N = counted_NM.sum(-1)
    mean_N = correlations.ratio((rewards_NM * counted_NM).sum(-1), count_N)
    deviation_NM = np.where(counted_NM, rewards_NM - np.nan_to_num(mean_N)[:, None], 0)
    values["reward_mean"] = mean_N
    values["reward_std"] = np.sqrt(correlations.ratio((deviation_NM**2).sum(-1), count_N))
    return values


def _pooled(clean: Any, weights_NM: np.ndarray, counted_NM: np.ndarray, picks_RN: np.ndarray) -> dict[str, Interval]:
    """Returns the numbers that are computed over all tasks together."""
    rewards_NM = clean.rewards_NM
    numbers: dict[str, Interval] = {}
    for kind, field in KINDS.items():
        effect_NM = getattr(clean, field)
        if effect_NM is not None:
            numbers[f"{kind}/pooled_spearman"] = correlations.pooled_spearman(
                rewards_NM, effect_NM, counted_NM, picks_RN
            )
            numbers[f"{kind}/pooled_pearson"] = correlations.pooled_pearson(rewards_NM, effect_NM, counted_NM, picks_RN)
    credit_NM = np.where(counted_NM, weights_NM * rewards_NM, 0)
    numbers["zero_sum_index"] = correlations.ratio_of_sums(
        np.abs(credit_NM.sum(-1)), np.abs(credit_NM).sum(-1), picks_RN
    )
    counted_rewards_NM = np.where(counted_NM, rewards_NM, 0)
    squares_N = (counted_rewards_NM**2).sum(-1)
    within_N = squares_N - correlations.ratio(counted_rewards_NM.sum(-1) ** 2, np.maximum(counted_NM.sum(-1), 1))
    share = correlations.ratio_of_sums(np.maximum(within_N, 0), squares_N, picks_RN)
    numbers["spread"] = Interval(math.sqrt(share.value), math.sqrt(share.low), math.sqrt(share.high), share.tasks)
    return numbers


def _per_weight(effect_NM: np.ndarray, weights_NM: np.ndarray) -> np.ndarray:
    """Divides effects by the weight that was added or removed, as a derivative is; 0 for an example without weight."""
    return np.divide(effect_NM, weights_NM, out=np.zeros_like(effect_NM), where=weights_NM > 0)


def _mean_of_finite(values_ND: np.ndarray) -> np.ndarray:
    """Returns the mean of the finite values of each row; NaN if there are none."""
    finite_ND = np.isfinite(values_ND)
    return correlations.ratio(np.where(finite_ND, values_ND, 0).sum(-1), finite_ND.sum(-1))


def _finite(value: float) -> float | None:
    """Returns a number, or None if it is not finite."""
    return value if math.isfinite(value) else None
