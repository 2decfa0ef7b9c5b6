"""Correlations within tasks and over all tasks, with bootstrap intervals over tasks.

Every function takes a mask of the entries that count. Everything runs on the host in float64.

Shape suffixes: N tasks, M examples per task, R resamples, S sums.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A statistic over tasks with its 95 % percentile bootstrap interval.

    Attributes:
        value: the statistic; NaN if no task has it.
        low: 2.5 % quantile over resamples of tasks.
        high: 97.5 % quantile.
        tasks: number of tasks that have the statistic; the others, such as those with constant rewards, are left out
            of it.
    """

    value: float
    low: float
    high: float
    tasks: int

    def to_dict(self) -> dict[str, float | None]:
        """Returns the fields for JSON; numbers that are not finite become None."""
        return {name: value if math.isfinite(value) else None for name, value in self._asdict().items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Interval":
        """Reads the fields of `to_dict`."""
        return cls(**dict[str, Any]((name, math.nan if value is None else value) for name, value in fields.items()))


def ranks(values_NM: np.ndarray, counted_NM: np.ndarray) -> np.ndarray:
    """Returns the rank of each entry among the counted entries of its row, from 1; ties share their average rank.

    >>> ranks(np.array([[3.0, 1.0, 3.0, 9.0]]), np.array([[True, True, True, False]])).tolist()
    [[2.5, 1.0, 2.5, 3.5]]
    """
    values, counted_N1M = np.asarray(values_NM, float), np.asarray(counted_NM, float)[:, None, :]
    left, right = values[:, :, None], values[:, None, :]
    below_NM = ((right < left) * counted_N1M).sum(-1)
    equal_NM = ((right == left) * counted_N1M).sum(-1)
    return below_NM + (equal_NM + 1) / 2


def pearson(left_NM: np.ndarray, right_NM: np.ndarray, counted_NM: np.ndarray) -> np.ndarray:
    """Returns Pearson's correlation of each row [N]; NaN where a row is constant or has fewer than two entries.

    >>> mask = np.ones((1, 3), bool)
    >>> pearson(np.array([[1.0, 2.0, 3.0]]), np.array([[2.0, 4.0, 6.0]]), mask).tolist()
    [1.0]
    """
    left, right = _centered(left_NM, counted_NM), _centered(right_NM, counted_NM)
    scale_N = np.sqrt((left**2).sum(-1) * (right**2).sum(-1))
    product_N = (left * right).sum(-1)
    return np.divide(product_N, scale_N, out=np.full_like(product_N, np.nan), where=scale_N > 0)


def spearman(left_NM: np.ndarray, right_NM: np.ndarray, counted_NM: np.ndarray) -> np.ndarray:
    """Returns Spearman's rank correlation of each row [N], with average ranks for ties; NaN where a row is constant."""
    return pearson(ranks(left_NM, counted_NM), ranks(right_NM, counted_NM), counted_NM)


def sign_agreement(left_NM: np.ndarray, right_NM: np.ndarray, counted_NM: np.ndarray) -> np.ndarray:
    """Returns the share of counted entries of each row [N] whose signs agree; NaN where nothing counts."""
    agree_NM = (np.sign(left_NM) == np.sign(right_NM)) & counted_NM
    return ratio(agree_NM.sum(-1), counted_NM.sum(-1))


def concordance(values_NM: np.ndarray, useful_NM: np.ndarray, counted_NM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts pairs of a useful and another example of the same task.

    Returns:
        The number of pairs [N] in which the useful example has the greater value, with ties counted as one half, and
        the number of all pairs [N]. The ratio of their sums is the AUC within tasks.
    """
    useful, other = counted_NM & useful_NM, counted_NM & ~useful_NM
    pairs_NMM = useful[:, :, None] & other[:, None, :]
    left, right = values_NM[:, :, None], values_NM[:, None, :]
    wins_N = ((left > right) * pairs_NMM).sum((1, 2)) + ((left == right) * pairs_NMM).sum((1, 2)) / 2
    return wins_N, pairs_NMM.sum((1, 2))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divides elementwise; NaN where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def mean_over_tasks(values_N: np.ndarray, picks_RN: np.ndarray) -> Interval:
    """Returns the mean over the tasks whose value is finite, with its interval."""
    finite_N = np.isfinite(values_N)
    return ratio_of_sums(np.where(finite_N, values_N, 0), finite_N.astype(float), picks_RN)


def ratio_of_sums(numerator_N: np.ndarray, denominator_N: np.ndarray, picks_RN: np.ndarray) -> Interval:
    """Returns the ratio of two sums over tasks, with its interval; tasks with denominator 0 do not have it."""
    sums_NS = np.stack([numerator_N, denominator_N], -1)
    return _interval(lambda sums: ratio(sums[..., 0], sums[..., 1]), sums_NS, picks_RN, np.asarray(denominator_N != 0))


def pooled_pearson(left_NM: np.ndarray, right_NM: np.ndarray, counted_NM: np.ndarray, picks_RN: np.ndarray) -> Interval:
    """Returns Pearson's correlation over the counted entries of all tasks together, with its interval."""
    # A shift changes no correlation, and the sums of squares below lose fewer digits.
    left, right = (np.where(counted_NM, x - _mean(x, counted_NM), 0.0) for x in (left_NM, right_NM))
    columns = (counted_NM.astype(float), left, right, left**2, right**2, left * right)
    sums_NS = np.stack([column.sum(-1) for column in columns], -1)

    def correlation(sums: np.ndarray) -> np.ndarray:
        count, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
        spread = np.maximum(count * xx - x**2, 0) * np.maximum(count * yy - y**2, 0)
        return ratio(count * xy - x * y, np.sqrt(spread))

    return _interval(correlation, sums_NS, picks_RN, np.asarray(counted_NM.any(-1)))


def pooled_spearman(
    left_NM: np.ndarray, right_NM: np.ndarray, counted_NM: np.ndarray, picks_RN: np.ndarray
) -> Interval:
    """Returns Spearman's correlation over all tasks together; resamples keep the ranks of the whole sample."""
    flat = counted_NM.reshape(1, -1)
    left, right = (ranks(x.reshape(1, -1), flat).reshape(x.shape) for x in (left_NM, right_NM))
    return pooled_pearson(left, right, counted_NM, picks_RN)


def resample(tasks: int, resamples: int, seed: int) -> np.ndarray:
    """Returns how often each bootstrap resample [R] draws each task [N]."""
    return np.random.default_rng(seed).multinomial(tasks, np.full(tasks, 1 / tasks), size=resamples)


def _interval(
    statistic: Callable[[np.ndarray], np.ndarray], sums_NS: np.ndarray, picks_RN: np.ndarray, has_N: np.ndarray
) -> Interval:
    """Evaluates a function of sums over tasks on the sample and on resamples; undefined resamples are left out."""
    value = float(statistic(sums_NS.sum(0)))
    drawn_R = statistic(picks_RN @ sums_NS)
    drawn_R = drawn_R[np.isfinite(drawn_R)]
    low, high = np.quantile(drawn_R, [0.025, 0.975]) if drawn_R.size else (np.nan, np.nan)
    return Interval(value, float(low), float(high), int(np.sum(has_N)))


def _mean(values_NM: np.ndarray, counted_NM: np.ndarray) -> float:
    """Mean of all counted entries; 0 if there are none."""
    return float(values_NM[counted_NM].mean()) if counted_NM.any() else 0.0


def _centered(values_NM: np.ndarray, counted_NM: np.ndarray) -> np.ndarray:
    """Subtracts each row's mean of its counted entries; constant rows become exactly 0, others entries are 0."""
    values = np.where(counted_NM, np.asarray(values_NM, float), 0.0)
    count_N1 = np.maximum(counted_NM.sum(-1, keepdims=True), 1)
    centered = np.where(counted_NM, values - values.sum(-1, keepdims=True) / count_N1, 0.0)
    low = np.where(counted_NM, values, np.inf).min(-1, keepdims=True)
    high = np.where(counted_NM, values, -np.inf).max(-1, keepdims=True)
    return np.where(high > low, centered, 0.0)  # the mean of equal numbers is not always that number
