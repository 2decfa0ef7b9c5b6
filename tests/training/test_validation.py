"""Settings of the inner optimizer by name."""

import jax
import numpy as np
import pytest

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.metagrad import signal
from mass_jax.method import adapt
from mass_jax.method.rewards import REWARDS, make_reward
from mass_jax.optax_functions import COMMON
from mass_jax.training.inner_setting import InnerSetting, parse_setting
from mass_jax.training.validation import Drawn, read_rows, validate_setting
from tests.small_models import components


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sgd:0.2", InnerSetting("sgd", 0.2, adapt.DEFAULT_EPS_ROOT, 2)),
        (" adam:0.03:1e-4 ", InnerSetting("adam", 0.03, 1e-4, 2)),
        ("nadam:0.03:auto", InnerSetting("nadam", 0.03, 0.01, 2)),
        ("adamw:0.1:1e-2:4", InnerSetting("adamw", 0.1, 1e-2, 4)),
        ("clip(1.0) | adam:0.03:auto", InnerSetting("clip(1.0) | adam", 0.03, 0.01, 2)),
        ("adam(eps_root=auto):0.03:1e-4", InnerSetting("adam(eps_root=auto)", 0.03, 0.01, 2)),
        ("sgd(cosine_decay_schedule(0.2, 4))", InnerSetting("sgd(cosine_decay_schedule(0.2, 4))", 0.2, 1e-8, 2)),
        ("optax:sgd:0.5", InnerSetting("optax:sgd", 0.5, adapt.DEFAULT_EPS_ROOT, 2)),
        ("momentum:0.1::3", InnerSetting("momentum", 0.1, adapt.DEFAULT_EPS_ROOT, 3)),
    ],
)
def test_parse_setting_fills_missing_values(text, expected):
    assert parse_setting(text, Config(), auto=lambda: 0.01) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adm:0.1", "did you mean 'adam'"),
        ("adam", "OPTIMIZER:RATE"),
        ("adam:0.1:-1", "use auto or a positive number"),
        ("adam:x", "OPTIMIZER:RATE"),
        ("adam:0.1:1e-8:2:1", "OPTIMIZER:RATE"),
        ("sgd:-1", "below its minimum"),
        ("sgd:0.1::0", "below its minimum"),
    ],
)
def test_parse_setting_names_value_and_form(text, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_setting(text, Config(), auto=lambda: 0.01)
    assert "\n" not in str(caught.value)


def test_every_optimizer_has_a_label():
    assert [InnerSetting(name, 0.1, 1e-6, 2).label for name in COMMON if not adapt.has_eps_root(name)] == [
        "sgd 0.1, K=2",
        "momentum 0.1, K=2",
        "adagrad 0.1, K=2",
        "rmsprop 0.1, K=2",
        "yogi 0.1, K=2",
    ]
    assert InnerSetting("sgd(0.5)", 0.1, 1e-6, 2).label == "sgd(0.5), K=2"
    assert InnerSetting("adamw", 0.1, 1e-6, 2).label == "adamw 0.1, eps_root 1e-06, K=2"


def test_rejected_texts_do_not_change_the_report():
    """Examples 1 and 4 are masked; the report equals that of the others."""
    made = components(lora_targets=("q_proj",), adjoint="first_order")  # exact with one inner step
    rollouts, weights, kept = made.rollouts, made.pretrained(), [0, 2, 3]
    problems = made.problems(0).train[:15]
    rows = jax.tree.map(lambda leaf: leaf.reshape(3, 5, leaf.shape[-1]).copy(), rollouts.dialogue.gold(problems).text)
    adapters = rollouts.loop.init_adapters(jax.random.split(jax.random.key(0), 3))
    counted = np.zeros((3, 5), bool)
    counted[:, kept] = True
    rows.target_BT[~counted] = 0
    options = signal.Options(finite_differences=False, add_one=False, directions=0, precision=False)

    def report(columns):
        chosen = jax.tree.map(lambda leaf: leaf[:, columns], rows)
        scores = np.where(counted, np.float32(0.5), np.float32(0))[:, columns]
        drawn = Drawn(
            problems[:3], scores, counted[:, columns], read_rows(rollouts, weights, chosen), adapters, None, None
        )
        setting = InnerSetting("sgd", 0.3, 0.0, 1)
        return validate_setting(rollouts, weights, drawn, setting, "gold", 2, options)

    found, expected = report([0, 1, 2, 3, 4]), report(kept)
    assert found.examples == expected.examples == 9
    for name in ("leave_one_out/spearman", "leave_one_out/pooled_pearson", "leave_one_out/sign", "reward_std"):
        assert found[name] == pytest.approx(expected[name], rel=1e-3)


def test_other_rewards_are_compared_with_effects():
    """leave_one_out is its own effect; gain keeps the order within problems; path sums to the gain."""
    made = components(lora_targets=("q_proj",), adjoint="first_order")  # exact with one inner step
    rollouts, weights = made.rollouts, made.pretrained()
    problems = made.problems(0).train[:12]
    rows = jax.tree.map(lambda leaf: leaf.reshape(3, 4, leaf.shape[-1]), rollouts.dialogue.gold(problems).text)
    adapters = rollouts.loop.init_adapters(jax.random.split(jax.random.key(0), 3))
    scores = np.full((3, 4), 0.5, np.float32)
    counted = np.ones((3, 4), bool)
    counted[:, 3] = False  # rejected
    rows = jax.tree.map(np.copy, rows)
    rows.target_BT[~counted] = 0
    drawn = Drawn(problems[:3], scores * counted, counted, read_rows(rollouts, weights, rows), adapters, None, None)
    options = signal.Options(add_one=False, directions=0)

    def report(name):
        setting = InnerSetting("sgd", 0.3, 0.0, 1)
        reward = make_reward(name, path_points=5)
        return validate_setting(rollouts, weights, drawn, setting, "gold", 2, options, reward=reward)

    found = {name: report(name) for name in REWARDS}
    assert found["leave_one_out"]["leave_one_out/pooled_pearson"] == pytest.approx(1)
    assert found["gain"]["leave_one_out/spearman"] == found["marginal"]["leave_one_out/spearman"]
    mean = found["marginal"]["reward_mean"] + found["marginal"]["gain"]
    assert found["gain"]["reward_mean"] == pytest.approx(mean, rel=1e-4)
    assert 3 * found["path"]["reward_mean"] == pytest.approx(found["path"]["gain"], rel=1e-2)
    measured = {name for name, one in found.items() if "cosine_float64" in one.numbers}
    assert measured == {name for name, one in found.items() if "finite_difference/sign" in one.numbers} == {"marginal"}
