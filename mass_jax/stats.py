"""Statistics of evaluations: intervals clustered by what problems share, and ranking quality. NumPy and SciPy only."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

RESAMPLES = 10_000


class Estimate(NamedTuple):
    """A mean with its 95 % interval, both as shares of 1."""

    mean: float
    low: float
    high: float


def clustered_mean(values: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Estimate:
    """Mean with a percentile bootstrap interval that resamples whole clusters.

    Problems of one cluster (one operator, say) succeed or fail together; resampling them one by one would promise more
    than the data holds. For paired differences, pass differences of the same problems.

    Args:
        values: one value a problem, e.g. 1.0 for a right answer.
        clusters: the cluster of each.
        seed: of the resampling.

    Returns:
        Mean and the 2.5 % and 97.5 % quantiles over 10,000 resamples.

    >>> clustered_mean([1, 1, 0, 0], ["a", "a", "b", "b"])
    Estimate(mean=0.5, low=0.0, high=1.0)
    """
    if not len(values):
        raise ValueError("no values to average: the evaluation is empty")
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, float))
    counts = np.bincount(index)
    picks = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    low, high = np.quantile((picks @ sums) / (picks @ counts), [0.025, 0.975])
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high))


def auc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Probability that a positive outranks a negative, ties counted half; None where one kind is absent.

    >>> auc(np.array([0.1, 0.9, 0.8]), np.array([False, True, False]))
    1.0
    """
    scores, labels = np.ravel(scores), np.ravel(labels).astype(bool)
    if labels.all() or not labels.any():
        return None
    statistic = scipy.stats.mannwhitneyu(scores[labels], scores[~labels]).statistic
    return float(statistic / (labels.sum() * (~labels).sum()))
