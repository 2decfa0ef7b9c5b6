"""Settings of the inner optimizer by name."""

import pytest

from mass_jax.config import Config
from mass_jax.config.inner import INNER_OPTIMIZERS
from mass_jax.errors import UserError
from mass_jax.method import adapt
from mass_jax.training.validation import InnerSetting, parse_setting


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sgd:0.2", InnerSetting("sgd", 0.2, adapt.DEFAULT_EPS_ROOT, 2)),
        (" adam:0.03:1e-4 ", InnerSetting("adam", 0.03, 1e-4, 2)),
        ("nadam:0.03:auto", InnerSetting("nadam", 0.03, 0.01, 2)),
        ("adamw:0.1:1e-2:4", InnerSetting("adamw", 0.1, 1e-2, 4)),
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
        ("adam:0.1:-1", "use auto or a number"),
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
    assert [InnerSetting(name, 0.1, 1e-6, 2).label for name in adapt.OPTIMIZERS if not adapt.has_eps_root(name)] == [
        "sgd 0.1, K=2",
        "momentum 0.1, K=2",
        "adagrad 0.1, K=2",
        "rmsprop 0.1, K=2",
        "yogi 0.1, K=2",
    ]
    assert InnerSetting("adamw", 0.1, 1e-6, 2).label == "adamw 0.1, eps_root 1e-06, K=2"


def test_config_names_every_inner_optimizer():
    assert set(INNER_OPTIMIZERS) == set(adapt.OPTIMIZERS)
