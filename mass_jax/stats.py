"""Evaluation statistics: clustered confidence intervals, paired tests and ranking quality."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000


class Estimate(NamedTuple):
    """A mean and its 95 % confidence interval, as fractions."""

    mean: float
    low: float
    high: float


def clustered_mean(values: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Estimate:
    """Estimates a mean and its percentile bootstrap interval by resampling whole clusters.

    Problems of a cluster, such as one operator, tend to succeed or fail together; resampling single problems would make
    the interval too narrow. For a paired comparison, pass the differences on the same problems.

    Args:
        values: one value per problem, such as 1.0 for a correct answer.
        clusters: cluster of each problem.
        seed: random seed of the resampling.

    Returns:
        The mean, and the 2.5 % and 97.5 % quantiles over 10,000 resamples.

    Raises:
        ValueError: If there are no values.

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
    r"""Computes the p-value of an exact two-sided test of paired correct (1) and incorrect (0) answers.

    Under the null hypothesis, the sum :math:`d_c` of the differences of each cluster has a symmetric distribution. With
    S the sum of all differences,

    .. math:: p = P(|\sum_c \epsilon_c d_c| \ge |S|), \quad \epsilon_c = \pm 1

    over all 2^n sign choices, counted by convolution. With one problem per cluster this is McNemar's exact test.

    Args:
        differences: difference of the answers of two methods to the same problem, in {-1, 0, 1}.
        clusters: cluster of each difference, such as the problem if several random seeds answered it.

    Returns:
        p in (0, 1].

    Source:
        McNemar 1947.

    >>> paired_p([1] * 6, [*"abcdef"])
    0.03125
    """
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.abs(np.bincount(index, weights=np.asarray(differences, float))).astype(int)
    total = abs(int(np.sum(differences)))
    chances = np.ones(1)  # probability of each sum from -reach to reach
    for size in sums[sums > 0]:
        gap = np.zeros(2 * size + 1)
        gap[0] = gap[-1] = 0.5
        chances = np.convolve(chances, gap)
    reach = len(chances) // 2
    return float(min(1.0, chances[np.abs(np.arange(-reach, reach + 1)) >= total].sum()))


def auc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Computes the area under the ROC curve: the probability that a positive outranks a negative.

    Args:
        scores: scores of any shape.
        labels: True or 1 for positives, of the same shape.

    Returns:
        The area, with ties counted as one half; NaN if a score is; None if there are no positives or no negatives.

    >>> auc(np.array([0.1, 0.9, 0.8]), np.array([False, True, False]))
    1.0
    """
    scores, labels = np.ravel(scores), np.ravel(labels).astype(bool)
    if labels.all() or not labels.any():
        return None
    if np.isnan(scores).any():
        return float("nan")
    positives, negatives = scores[labels], np.sort(scores[~labels])
    # The same as scipy.stats.mannwhitneyu, whose import takes more than a second.
    below, not_above = (np.searchsorted(negatives, positives, side) for side in ("left", "right"))
    return float((below + not_above).sum() / (2 * len(positives) * len(negatives)))
