"""Correlations against scipy, with ties, masks and constant rows."""

import numpy as np
import pytest
import scipy.stats

from mass_jax.metagrad.signal import correlations
from mass_jax.stats import auc


@pytest.fixture
def tied():
    """Integers with many ties, and a mask that leaves at least three entries in each row."""
    rng = np.random.default_rng(0)
    left, right = (rng.integers(0, 4, (6, 9)).astype(float) for _ in range(2))
    counted = rng.random((6, 9)) < 0.7
    counted[:, :3] = True
    return left, right, counted


@pytest.mark.parametrize("name", ["spearman", "pearson"])
def test_correlation_matches_scipy(tied, name):
    left, right, counted = tied
    expected = [getattr(scipy.stats, f"{name}r")(a[mask], b[mask]).statistic for a, b, mask in zip(*tied, strict=True)]
    np.testing.assert_allclose(getattr(correlations, name)(left, right, counted), expected, rtol=1e-12)


def test_pooled_correlations_match_scipy(tied):
    left, right, counted = tied
    picks = correlations.resample(6, 50, seed=0)
    flat = left[counted], right[counted]
    spearman, pearson = (f(*tied, picks) for f in (correlations.pooled_spearman, correlations.pooled_pearson))
    assert spearman.value == pytest.approx(scipy.stats.spearmanr(*flat).statistic)
    assert pearson.value == pytest.approx(scipy.stats.pearsonr(*flat).statistic)
    assert pearson.low < pearson.value < pearson.high


def test_constant_rows_are_nan_and_counted():
    rewards = np.array([[0.1, 0.1, 0.1], [1.0, 2.0, 3.0]])  # the mean of 0.1, 0.1 and 0.1 is not 0.1
    values = correlations.pearson(rewards, np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]]), np.ones((2, 3), bool))
    assert np.isnan(values[0])
    found = correlations.mean_over_tasks(values, correlations.resample(2, 20, seed=0))
    assert found.value == pytest.approx(values[1])
    assert found.tasks == 1


def test_statistic_of_no_task_is_nan():
    found = correlations.mean_over_tasks(np.array([np.nan, np.nan]), correlations.resample(2, 20, seed=0))
    assert np.isnan(found[:3]).all()
    assert found.tasks == 0


def test_concordance_of_one_task_is_auc(tied):
    left, _, counted = tied
    useful = np.arange(9)[None] % 2 == 0
    wins, pairs = correlations.concordance(left[:1], useful, counted[:1])
    expected = auc(left[0][counted[0]], useful[0][counted[0]])
    assert wins[0] / pairs[0] == pytest.approx(expected)


def test_sign_agreement_ignores_uncounted_entries():
    left, right = np.array([[1.0, -1.0, 0.0, 5.0]]), np.array([[2.0, 1.0, 0.0, -5.0]])
    counted = np.array([[True, True, True, False]])
    assert correlations.sign_agreement(left, right, counted).tolist() == [2 / 3]
