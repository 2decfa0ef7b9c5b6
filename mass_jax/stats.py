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


def paired_p(differences: Sequence[int], clusters: Sequence[str]) -> float:
    r"""Exact two-sided test of paired right (1) and wrong (0) answers: could the differences be luck?

    Under the null hypothesis each cluster's sum of differences is as likely with the other sign. With S the sum of all,

    .. math:: p = P(|\sum_c \epsilon_c d_c| \ge |S|), \quad \epsilon_c = \pm 1

    over all 2^n sign choices, counted by convolution. Where every cluster is one problem this is McNemar's exact test.

    Args:
        differences: right minus right of the same problem, in {-1, 0, 1}.
        clusters: the cluster of each, such as the problem where several seeds answered it.

    Returns:
        p in (0, 1].

    Source: McNemar 1947.

    >>> paired_p([1] * 6, [*"abcdef"])
    0.03125
    """
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.abs(np.bincount(index, weights=np.asarray(differences, float))).astype(int)
    total = abs(int(np.sum(differences)))
    chances = np.ones(1)  # of each sum from -reach to reach
    for size in sums[sums > 0]:
        gap = np.zeros(2 * size + 1)
        gap[0] = gap[-1] = 0.5
        chances = np.convolve(chances, gap)
    reach = len(chances) // 2
    return float(min(1.0, chances[np.abs(np.arange(-reach, reach + 1)) >= total].sum()))


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
