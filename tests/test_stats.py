"""Tests for mass_jax.stats."""

import numpy as np
import pytest
import scipy.stats

from mass_jax.stats import auc, clustered_mean


def test_clustered_mean_has_nominal_coverage():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        effects = rng.normal(0.5, 0.2, size=40).repeat(5)  # five identical problems per cluster
        estimate = clustered_mean(effects, np.arange(40).repeat(5).astype(str), seed)
        hits += estimate.low <= 0.5 <= estimate.high
    assert 0.88 <= hits / 200 <= 0.99


def test_clustered_mean_widens_with_clusters():
    values = np.random.default_rng(1).integers(0, 2, 40).repeat(10)
    clustered = clustered_mean(values, np.arange(40).repeat(10).astype(str))
    alone = clustered_mean(values, np.arange(400).astype(str))
    assert clustered.mean == alone.mean
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)


def test_clustered_mean_refuses_no_values():
    with pytest.raises(ValueError, match="empty"):
        clustered_mean([], [])


def test_auc_handles_ties_and_single_class():
    assert auc(np.zeros(4), np.array([0, 1, 0, 1])) == 0.5
    assert auc(np.arange(4.0), np.ones(4)) is None
    assert np.isnan(auc(np.array([0.0, np.nan, 1.0]), np.array([0, 1, 0])))


def test_auc_equals_share_of_ordered_pairs():
    rng = np.random.default_rng(2)
    scores, labels = rng.integers(0, 5, 60), rng.integers(0, 2, 60).astype(bool)
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    assert auc(scores, labels) == pytest.approx(np.mean(pairs))
    statistic = scipy.stats.mannwhitneyu(scores[labels], scores[~labels]).statistic
    assert auc(scores, labels) == statistic / len(pairs)
