"""The comparison of estimators: their names, their agreement with known rewards, and runs on real components."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.errors import UserError
from mass_jax.metagrad import signal
from mass_jax.metagrad.signal import Interval
from mass_jax.training import estimators
from mass_jax.training.estimator_page import tables
from mass_jax.training.estimator_runs import run_adjoints
from mass_jax.training.estimators import EstimatorRow, agreement, estimators_of, parse_estimator
from mass_jax.training.inner_setting import InnerSetting
from mass_jax.training.validation import Drawn, read_rows
from tests.small_models import components


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first_order", mg.FirstOrder()),
        (" truncated:4 ", mg.Truncated(4)),
        ("t1t2", mg.T1T2(0.2)),
        ("sama", mg.SAMA()),
        ("evolution:8:0.5", mg.EvolutionStrategies(8, 0.5)),
    ],
)
def test_parse_estimator_builds_adjoint(text, expected):
    assert parse_estimator(text, rate=0.2) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("firstorder", "'firstorder' is unknown; did you mean 'first_order'"),
        ("truncated", "'truncated' is not truncated:STEPS"),
        ("truncated:0", "is not truncated:STEPS .*give at least 1"),
        ("sama:2", "'sama:2' is not sama"),
        ("evolution:x", r"is not evolution:PAIRS\[:SIGMA\]"),
        ("evolution:4:-1", "is not evolution.*positive"),
        ("evolution:4:1:1", "is not evolution"),
    ],
)
def test_parse_estimator_names_value_and_form(text, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_estimator(text, rate=0.2)
    assert "\n" not in str(caught.value)


def test_truncation_to_all_steps_is_left_out():
    found = estimators_of(["truncated:1", "truncated:2", "sama"], InnerSetting("sgd", 0.2, 0.0, 2))
    assert list(found) == ["exact", "truncated:1", "sama"]


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        ("sgd", 0.2),
        ("sgd(0.4)", 0.4),
        ("clip(1.0) | sgd(learning_rate=0.5)", 0.5),
        ("sgd(0.4) | scale(0.5)", 0.2),
        ("chain(trace(0.9), scale(-0.3))", 0.3),
        ("scale_by_learning_rate(0.3)", 0.3),
        ("sgd(linear_schedule(0.4, 0.1, 3))", 0.2),  # at the last of three steps
        ("trace(0.9) | scale_by_schedule(constant_schedule(-0.7))", 0.7),
        ("clip(1.0)", 0.2),
        ("custom", 0.2),
    ],
)
def test_t1t2_takes_rate_of_last_step(optimizer, rate):
    found = estimators_of(["t1t2"], InnerSetting(optimizer, 0.2, 1e-8, 3))["t1t2"]
    assert found.rate == pytest.approx(rate)


def test_t1t2_without_rate_is_left_out():
    found = estimators_of(["t1t2", "sama"], InnerSetting("sgd(linear_schedule(0.4, 0.0, 1))", 0.2, 1e-8, 2))
    assert list(found) == ["exact", "sama"]


def test_t1t2_equals_last_step_of_sgd():
    """With a rate in the expression, and another one as --inner_lr."""
    setting, params, batch = InnerSetting("sgd(0.4)", 0.2, 1e-8, 2), jnp.float32(0.3), jnp.array([1.0, -2.0])
    loss = mg.WeightedLoss(lambda params, batch: (params - batch) ** 2)
    optimizer = mg.parse_optimizer(setting.optimizer, setting.rate)
    rewards = [
        mg.meta_gradient(
            loss, lambda params, goal: (params - goal) ** 2, params, jnp.full(2, 0.5), batch, jnp.float32(1.0),
            optimizer=optimizer, num_steps=setting.steps, adjoint=adjoint,
        ).meta
        for adjoint in estimators_of(["t1t2", "truncated:1"], setting).values()
    ]  # fmt: skip
    np.testing.assert_allclose(rewards[1], rewards[2], rtol=1e-5)


def drawn(kept):
    kept = np.asarray(kept, bool)
    return Drawn([None] * len(kept), 0.5 * kept, kept, None, None, None, None)


def test_agreement_matches_closed_form():
    """The last example of the first problem is rejected, and the third problem is not finite."""
    exact = np.array([[1.0, 2.0, 4.0, 9.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    estimate = np.array([[2.0, 4.0, 8.0, -50.0], [4.0, 3.0, 2.0, 1.0], [np.nan, 2.0, 3.0, 4.0]])
    effects = signal.Effects(np.ones(3), np.zeros(3), exact, exact)
    numbers, not_finite = agreement(effects, estimate, exact, drawn([[1, 1, 1, 0], [1] * 4, [1] * 4]))
    assert not_finite == 1
    assert {interval.tasks for interval in numbers.values()} == {2}
    assert numbers["cosine"].value == pytest.approx((1 + 20 / 30) / 2)
    assert numbers["pearson"].value == pytest.approx(0)  # 1 and -1
    assert numbers["norm_ratio"].value == pytest.approx(1.5)
    assert numbers["leave_one_out"].value == pytest.approx(0)
    assert numbers["difference"].value == pytest.approx(-1)


def test_row_survives_json_and_is_shown():
    numbers = {"cosine": Interval(0.5, 0.25, 0.75, 3), "leave_one_out": Interval(math.nan, math.nan, math.nan, 0)}
    row = EstimatorRow("SAMA()", 1.5, 0.5, 2**21, 1, numbers)
    stored = row.to_dict()
    assert stored["numbers"]["leave_one_out"]["value"] is None
    again = EstimatorRow.from_dict(stored)
    assert again.numbers["cosine"] == numbers["cosine"]
    assert again[:5] == row[:5]
    assert again.to_dict() == stored
    header = {"model": "m", "task": "t", "problems": 3, "examples": 2, "score": 0.5, "seed": 0, "repeats": 1}
    text = tables(header | {"device": "cpu"}, {"sgd 0.2, K=2": {"sama": row}})
    assert "| sama | 1.5 | 0.50 | 2.0 | 0.50 (0.25, 0.75) | none | 1 |" in text


def build(shared, hyper):
    def squared(params, points):
        return ((params - points - shared) ** 2).sum(-1)

    return mg.WeightedLoss(squared), squared, optax.sgd(hyper)


def test_problems_have_their_own_noise_and_stop_between_runs():
    """Both problems are the same, so that only their noise differs."""
    tasks = signal.Tasks(jnp.ones((2, 3)), jnp.full((2, 4), 0.5), jnp.ones((2, 4, 1)) * 0.3, jnp.zeros((2, 3)))
    adjoints = {"exact": mg.WeightedMixedMode(), "evolution": mg.EvolutionStrategies(4)}
    adaptation, polls = signal.Adaptation(build, 2, mg.MixedMode()), []
    found = run_adjoints(
        adaptation, jnp.zeros(()), 0.1, tasks, adjoints, key=jax.random.key(1), repeats=2, poll=lambda: polls.append(1)
    )
    assert len(polls) == 8  # for each adjoint: its compilation, its warm-up and two timed runs
    assert [len(each.seconds) for each in found.values()] == [2, 2]
    np.testing.assert_array_equal(*found["exact"].rewards_NM)
    assert not np.allclose(*found["evolution"].rewards_NM)


def test_first_order_is_exact_with_one_step():
    """Runs the testbed's components on correct examples, without sampling."""
    made = components(lora_targets=("q_proj",))
    rollouts, weights = made.rollouts, made.pretrained()
    problems = made.problems(0).train[:6]
    rows = jax.tree.map(lambda leaf: leaf.reshape(2, 3, leaf.shape[-1]), rollouts.dialogue.gold(problems).text)
    adapters = rollouts.loop.init_adapters(jax.random.split(jax.random.key(0), 2))
    kept = np.ones((2, 3), bool)
    examples = read_rows(rollouts, weights, rows)
    given = Drawn(problems[:2], np.full((2, 3), 0.5, np.float32), kept, examples, adapters, None, None)
    setting = InnerSetting("sgd", 0.3, 0.0, 1)
    found = estimators.compare(
        rollouts,
        weights,
        given,
        setting,
        estimators_of(["first_order"], setting),
        key=jax.random.key(0),
        repeats=1,
    )
    assert list(found) == ["exact", "first_order"]
    numbers = found["first_order"].numbers
    for name, value in {"cosine": 1, "pearson": 1, "norm_ratio": 1, "difference": 0}.items():
        assert numbers[name].value == pytest.approx(value, abs=1e-4), name
    assert found["exact"].numbers["leave_one_out"].value > 0.5
    assert found["exact"].times_exact == 1
    assert min(row.temp_bytes for row in found.values()) > 0
