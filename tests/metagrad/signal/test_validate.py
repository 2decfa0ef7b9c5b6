"""The comparison of rewards with effects on quadratic problems, whose effects are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.errors import UserError
from mass_jax.metagrad import signal

N, M, D = 6, 5, 8
RATE = 0.01


def squared(params, points):
    return ((params - points) ** 2).sum(-1)


def build(shared, hyper):
    return mg.WeightedLoss(lambda params, points: squared(params, points + shared)), squared, optax.sgd(hyper)


@pytest.fixture
def tasks():
    """Examples scattered around the target of each task, so that adaptation helps."""
    keys = jax.random.split(jax.random.key(0), 4)
    targets = jax.random.normal(keys[0], (N, D))
    points = targets[:, None] + jax.random.normal(keys[1], (N, M, D))
    weights = jax.random.uniform(keys[2], (N, M), minval=0.2, maxval=0.8)
    return signal.Tasks(jax.random.normal(keys[3], (N, D)), weights, points, targets)


def report(tasks, optimizer, num_steps=2, **settings):
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
        return mg.validate(
            mg.WeightedLoss(squared), squared, *tasks, optimizer=optimizer, num_steps=num_steps, **settings
        )


def after_one_step(tasks, weights):
    """Outer loss after one step of gradient descent, in closed form."""
    gradient = 2 * (weights[..., None] * (tasks.params[:, None] - tasks.batch)).sum(1)
    return squared(tasks.params - RATE * gradient, tasks.outer_batch)


@pytest.mark.parametrize("at_a_time", [0, 4])
def test_effects_match_closed_form(x64, tasks, at_a_time):
    tasks = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tasks)
    adaptation = signal.Adaptation(build, 1, mg.WeightedMixedMode(), at_a_time)
    options = signal.Options(difference=1e-5, precision=False)
    found = signal.measure(adaptation, jnp.zeros(D), jnp.float64(RATE), tasks, options=options)
    np.testing.assert_allclose(found.rewards_NM, found.finite_difference_NM, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        found.rewards_NM, -jax.grad(lambda w: after_one_step(tasks, w).sum())(tasks.weights_NM), rtol=1e-10
    )
    full, zero = after_one_step(tasks, tasks.weights_NM), after_one_step(tasks, jnp.zeros((N, M)))
    for i in range(M):
        without = after_one_step(tasks, tasks.weights_NM.at[:, i].set(0))
        alone = after_one_step(tasks, jnp.zeros((N, M)).at[:, i].set(tasks.weights_NM[:, i]))
        np.testing.assert_allclose(found.leave_one_out_NM[:, i], without - full, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(found.add_one_NM[:, i], zero - alone, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found.metasmoothness_ND, 1, rtol=1e-10)  # one SGD step is linear in the weights


def test_sgd_carries_signal_and_sign_like_adam_is_flagged(tasks):
    good, bad = report(tasks, optax.sgd(RATE)), report(tasks, optax.adam(0.3, eps_root=1e-12))
    assert good["zero_sum_index"] > 0.3
    assert good["leave_one_out/spearman"] > 0.9
    assert mg.findings(good) == ()
    assert bad["zero_sum_index"] < 0.02
    assert bad["gain"] > 0
    zero_sum = next(f for f in mg.findings(bad, {"sgd": good}) if f.name == "zero-sum")
    assert zero_sum.settings[0] == "eps_root"
    assert zero_sum.better == (("sgd", good["zero_sum_index"]),)


def test_precision_compares_three_dtypes(tasks):
    adaptation = signal.Adaptation(build, 1, mg.WeightedMixedMode())
    options = signal.Options(finite_differences=False, add_one=False, directions=0)
    with jax.numpy_dtype_promotion("standard"):
        base = jax.random.normal(jax.random.key(4), (D,))
        found = signal.measure(adaptation, base, jnp.float32(RATE), tasks, options=options)
    assert found.rewards_float64_NM.dtype == np.float64
    assert found.add_one_NM is found.finite_difference_NM is found.metasmoothness_ND is None
    summary = signal.summarize(found, tasks.weights_NM)
    assert found.rewards_bfloat16_NM.dtype == found.rewards_NM.dtype == np.float32
    assert 1 - 1e-9 < summary["cosine_float64"] < 1 + 1e-9
    assert summary["cosine_bfloat16"] > 0.99
    assert not np.array_equal(found.rewards_bfloat16_NM, found.rewards_NM)
    assert "add_one/spearman" not in summary.numbers


@pytest.mark.parametrize(("dtype", "measured"), [("float32", True), ("bfloat16", False)])
def test_bfloat16_base_is_not_compared_with_itself(dtype, measured, tasks):
    def build_wide(shared, hyper):
        base, scalar = (shared[name].astype(hyper.dtype) for name in ("base", "scalar"))
        return build(base + scalar, hyper)

    adaptation = signal.Adaptation(build_wide, 1, mg.WeightedMixedMode())
    shared = {"base": jnp.zeros(D, dtype), "scalar": jnp.float32(0)}
    found = signal.measure(adaptation, shared, jnp.float32(RATE), tasks)
    assert (found.rewards_bfloat16_NM is not None) == measured
    assert found.rewards_float64_NM is not None


def effects(rewards, leave_one_out=None):
    rewards = np.asarray(rewards, float)
    leave_one_out = rewards if leave_one_out is None else np.asarray(leave_one_out, float)
    return signal.Effects(np.ones(len(rewards)), np.zeros(len(rewards)), rewards, leave_one_out)


def test_tasks_without_numbers_are_counted():
    rewards = [[1.0, 2.0, 3.0], [0.1, 0.1, 0.1], [np.nan, 1.0, 2.0]]
    summary = signal.summarize(effects(rewards, [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]), np.ones((3, 3)))
    assert (summary.tasks, summary.not_finite, summary.examples) == (3, 1, 6)
    assert summary["signal_share"] == pytest.approx(1 / 3)
    assert summary.numbers["leave_one_out/spearman"].tasks == 1
    assert summary.per_task["leave_one_out/spearman"] == (1.0, None, None)
    assert {f.name for f in mg.findings(summary)} >= {"not finite", "no signal"}


def test_zero_sum_index_is_ratio_of_sums():
    summary = signal.summarize(effects([[1.0, 1.0], [2.0, -2.0]]), np.full((2, 2), 0.5))
    assert summary["zero_sum_index"] == pytest.approx(1 / 3)


def test_uncounted_examples_do_not_correlate():
    counted = np.array([[True, True, True, False]])
    summary = signal.summarize(
        effects([[1.0, 2.0, 3.0, 9.0]], [[1.0, 2.0, 3.0, -9.0]]), np.ones((1, 4)), counted_NM=counted
    )
    assert summary["leave_one_out/spearman"] == summary["leave_one_out/pooled_pearson"] == pytest.approx(1.0)


def test_effects_count_per_weight():
    weights = np.array([[0.1, 1.0, 0.5]])
    summary = signal.summarize(effects([[3.0, 2.0, 1.0]], weights * [[3.0, 2.0, 1.0]]), weights)
    assert summary["leave_one_out/pearson"] == pytest.approx(1.0)


def test_auc_compares_examples_of_one_task():
    useful = np.array([[True, False], [True, False]])
    summary = signal.summarize(effects([[1.0, 0.0], [101.0, 100.0]]), np.ones((2, 2)), useful_NM=useful)
    assert summary["reward_auc"] == 1.0


def test_report_survives_json(tasks):
    original = signal.summarize(effects([[1.0, 2.0], [3.0, 3.0]]), np.ones((2, 2)))
    assert signal.SignalReport.from_json(original.to_json()).to_json() == original.to_json()


def test_validate_refuses_bad_arguments(tasks):
    with pytest.raises(UserError, match="must be a WeightedLoss"):
        mg.validate(lambda *_: 0.0, squared, *tasks, optimizer=optax.sgd(0.1), num_steps=1)
    with pytest.raises(UserError, match="one row of weights per task"):
        report(tasks._replace(weights_NM=jnp.ones(M)), optax.sgd(0.1))
