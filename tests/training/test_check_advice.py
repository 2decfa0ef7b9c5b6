"""The log lines and the advice of the check of the reward signal."""

import math

import pytest

from mass_jax.config import Config
from mass_jax.metagrad import findings
from mass_jax.metagrad.signal import Interval, SignalReport
from mass_jax.training.check_advice import describe, flags_of, nearby
from mass_jax.training.inner_setting import InnerSetting

ADAM = Config(inner_optimizer="adam", inner_lr=0.03)


def report(correlation=0.9, zero_sum=0.4, share=1.0, examples=32, not_finite=0, correlated=8):
    numbers = {"zero_sum_index": zero_sum, "signal_share": share}
    intervals = {name: Interval(v, v, v, 8) for name, v in numbers.items()}
    intervals["leave_one_out/spearman"] = Interval(correlation, correlation, correlation, correlated)
    return SignalReport(8, examples, not_finite, intervals, {})


def advice(found, config=ADAM, gold=False):
    """Returns the line with the weaknesses and the flags."""
    return describe("mass", found, {}, config, gold=gold)[1]


def test_good_signal_takes_three_lines():
    first, second, third = describe("mass gold", report(0.97), {}, ADAM, gold=True)
    assert "correlation with leave-one-out 0.97" in first
    assert second == "mass gold: the reward predicts the effect of the examples"
    assert third == (
        "mass gold: weak would be a correlation below 0.8, or one that less than 0.5 of the problems have, a zero-sum "
        "index below 0.1, or signal in less than 0.5 of the problems"
    )


def test_weak_signal_without_alternatives_takes_three_lines():
    assert describe("mass", report(0.1), {}, ADAM, gold=True)[2].startswith("mass: other settings were not measured")


def test_weak_signal_names_flags_and_alternatives():
    others = {"adam 0.03, eps_root 0.01, K=2": report(0.9, 0.3)}
    weak = describe("mass", report(0.35, 0.001), others, ADAM, gold=True)
    assert len(weak) == 3
    assert "zero-sum (zero_sum_index 0.001, should be at least 0.1)" in weak[1]
    assert weak[1].endswith(
        "; change --inner_eps_root or --inner_optimizer or --inner_lr or --reward=leave_one_out; adam 0.03, "
        "eps_root 0.01, K=2 is not weak"
    )
    assert weak[2] == (
        "mass: on the same problems, adam 0.03, eps_root 0.01, K=2: correlation 0.90, zero-sum index 0.300"
    )


@pytest.mark.parametrize(("correlated", "shown"), [(0, "none"), (1, "0.90 (0.90 to 0.90; in 1 problems)")])
def test_correlation_of_few_problems_is_no_evidence(correlated, shown):
    found = report(0.9 if correlated else math.nan, correlated=correlated)
    first, second, third = describe("mass", found, {"sgd 0.2": found}, ADAM, gold=True)
    assert f"correlation with leave-one-out {shown}, zero-sum" in first
    share = f"{correlated / 8:.3g}"
    assert second == (
        f"mass: weak reward: not measured (correlated_share {share}, should be at least 0.5); change --num_examples or "
        f"--inner_lr"
    )
    assert "nan" not in third


def test_unsolved_problems_suggest_a_smaller_rate():
    found = report(math.nan, math.nan, share=0.0, correlated=0)
    lines = describe("mass", found, {}, ADAM, gold=False, unsolved_share=0.9)
    assert lines[1].endswith("; change a smaller --inner_lr or --dynamic_sampling or --num_attempts or --outer=gold")
    assert "inner_lr" not in describe("mass", found, {}, ADAM, gold=False, unsolved_share=0.2)[1]


def test_measured_effects_are_no_remedy_for_themselves():
    config = Config(inner_optimizer="adam", reward="leave_one_out")
    assert "--reward" not in describe("mass", report(0.9, 0.001), {}, config, gold=True)[1]


def test_alternatives_on_gold_solutions_say_so():
    found = report(math.nan, math.nan, share=0.0, correlated=0)
    lines = describe("mass", found, {"adam 0.01": report()}, ADAM, gold=False)
    assert lines[2].startswith("mass: on the same problems with gold solutions, adam 0.01: correlation 0.90")


def test_alternatives_name_their_reward():
    config = Config(inner_optimizer="adam", reward="path")
    lines = describe("mass", report(0.1), {"sgd 0.2, K=2": report()}, config, gold=True)
    assert lines[2].startswith("mass: on the same problems and with --reward=marginal, sgd 0.2")


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "rmsprop"])
def test_optimizers_without_eps_root_get_other_advice(optimizer):
    line = advice(report(0.2, 0.01, not_finite=2), Config(inner_optimizer=optimizer))
    assert line.endswith("; change --inner_lr or --inner_optimizer or --reward=leave_one_out")


def test_first_flags_of_every_weakness_are_named():
    line = advice(report(0.2, 0.01, share=0.3))
    assert line.endswith(
        "; change --dynamic_sampling or --num_attempts or --outer=gold or --inner_eps_root or --inner_optimizer or "
        "--inner_lr or --reward=leave_one_out"
    )


@pytest.mark.parametrize(
    ("examples", "gold", "flags"),
    [
        (32, False, ("--dynamic_sampling", "--num_attempts", "--outer=gold")),
        (32, True, ("--num_examples", "--inner_steps")),
        (0, False, ("--max_example_tokens", "--model")),
        (0, True, ("--max_example_tokens", "--model")),
    ],
)
def test_flags_without_signal_depend_on_cause(examples, gold, flags):
    found = report(math.nan, math.nan, share=0.0, examples=examples, correlated=0)
    [weak] = findings(found)
    assert flags_of(weak, found, "sgd", gold=gold) == flags


def test_share_that_is_not_finite_has_upper_limit():
    assert "not finite (not_finite 0.25, should be at most 0)" in advice(report(not_finite=2))


@pytest.mark.parametrize("optimizer", ["sgd", "yogi"])
def test_nearby_lowers_rate_without_eps_root(optimizer):
    assert [other.rate for other in nearby(InnerSetting(optimizer, 0.2, 1e-8, 2))] == [0.1, 0.05]


@pytest.mark.parametrize(
    ("optimizer", "flags"),
    [
        ("adam(eps_root=1e-8)", "a greater eps_root in --inner_optimizer or --inner_optimizer"),
        ("chain(scale_by_adam(eps_root=1e-6), scale(-0.1))", "a greater eps_root in --inner_optimizer or --inner_opt"),
        ("adam(eps_root=auto)", "a greater eps_root in --inner_optimizer or --inner_optimizer"),
        ("adam(0.1)", "--inner_eps_root or --inner_optimizer"),
        ("clip_by_global_norm(0.001) | sgd", "a greater threshold of clip_by_global_norm in --inner_optimizer or "),
        ("clip(0.1) | adam", "a greater threshold of clip in --inner_optimizer or --inner_eps_root"),
        ("sgd(0.4)", "--inner_optimizer or a smaller learning rate in --inner_optimizer"),
    ],
)
def test_zero_sum_reward_names_settings_of_expression(optimizer, flags):
    assert f"change {flags}" in advice(report(0.9, 0.01), Config(inner_optimizer=optimizer), gold=True)


def test_rate_of_expression_is_named_once():
    line = advice(report(0.2, 0.01, not_finite=2), Config(inner_optimizer="sgd(0.4)"))
    assert line.endswith(
        "; change the learning rate in --inner_optimizer or --inner_optimizer or --reward=leave_one_out"
    )


@pytest.mark.parametrize(
    ("optimizer", "eps_root", "expected"),
    [
        ("adam(eps_root=1e-8)", 1e-4, [("adam", 1e-6), ("adam", 1e-4), ("adam", 1e-2)]),
        ("nadam(0.1, eps_root=1e-3)", 1e-8, [("nadam(learning_rate=0.1)", 1e-2), ("nadam(learning_rate=0.1)", 0.1)]),
        ("adam(eps_root=auto)", 0.01, [("adam(eps_root=auto)", 0.1), ("adam(eps_root=auto)", 1.0)]),
        ("amsgrad", 0.03, [("amsgrad", 0.3)]),
    ],
)
def test_nearby_raises_eps_root_within_bound(optimizer, eps_root, expected):
    found = nearby(InnerSetting(optimizer, 0.2, eps_root, 2))
    assert [(other.optimizer, other.eps_root) for other in found] == expected


def test_nearby_lowers_rate_at_greatest_eps_root():
    assert [other.rate for other in nearby(InnerSetting("adam", 0.2, 1.0, 2))] == [0.1, 0.05]


def test_nearby_lowers_rate_of_expression():
    found = nearby(InnerSetting("sgd(0.4, momentum=0.9)", 0.1, 1e-8, 2))
    assert [(other.optimizer, other.rate) for other in found] == [
        ("sgd(momentum=0.9)", 0.2),
        ("sgd(momentum=0.9)", 0.1),
    ]


def test_nearby_raises_thresholds_of_clipping():
    found = nearby(InnerSetting("clip_by_global_norm(0.001) | sgd", 0.2, 1e-8, 2))
    assert [other.optimizer for other in found[:2]] == [
        "clip_by_global_norm(max_norm=0.01) | sgd",
        "clip_by_global_norm(max_norm=0.1) | sgd",
    ]
    assert [other.rate for other in found[2:]] == [0.1, 0.05]


@pytest.mark.parametrize("optimizer", ["custom", "sgd(linear_schedule(0.2, 0.1, 4))"])
def test_nearby_needs_numbers(optimizer):
    assert nearby(InnerSetting(optimizer, 0.2, 1e-8, 2)) == ()
