"""Policy: validation of the file, permissions, hourly budgets and bounds on updates."""

import dataclasses
import json

import pytest

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.serving.guards.bounds import UpdateLimits, judge, within
from mass_jax.serving.guards.policy import Ledger, Permission, Policy, permit
from mass_jax.serving.guards.policy_file import read_policy


def test_read_policy_inverts_to_json(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(Policy().to_json())
    assert read_policy(path) == Policy()


def change(data, where, value):
    *parents, last = where
    for key in parents:
        data = data[key]
    if value is None:
        del data[last]
    else:
        data[last] = value


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (["version"], 2, "version=2 must be 1"),
        (["version"], None, "version is missing"),
        (["rules"], None, "rules is missing"),
        (["rules"], [], "a list that is not empty"),
        (["rules", 0, "users"], "root", "rules[0].users='root' must be a list that is not empty"),
        (["rules", 0, "users"], [], "rules[0].users=[] must be a list that is not empty"),
        (["rules", 0, "users"], [7], "rules[0].users[0]=7 must be a string"),
        (["rules", 0, "questions_per_hour"], -1, "rules[0].questions_per_hour=-1 must be 0 or more"),
        (["rules", 0, "questions_per_hour"], 1.5, "must be a whole number of 0 or more"),
        (["rules", 0, "tokens_per_hour"], True, "whole number"),
        (["gates", "parsing"], {}, "gate 'parsing' is unknown; did you mean 'parse'?"),
        (["gates", "answer"], {"agreement": 1}, "unknown setting 'agreement'; did you mean 'min_agreement'?"),
        (["gates", "answer"], {"samples": "many"}, "gates.answer.samples='many' must be a number"),
        (["gates", "parse"], {"x": 1}, "it has none"),
        (["gates"], ["parse"], "gates=['parse'] must be an object"),
        (["limits", "loss_ratio"], "NaN", "limits.loss_ratio='NaN' must be a number"),
        (["limits", "loss_ratio"], float("nan"), "must be a finite number"),
        (["limits", "loss_ratio"], float("inf"), "must be a finite number"),
        (["limits", "loss_ratio"], True, "must be a number"),
        (["limits", "excess"], "ignore", "give 'refuse' or 'scale'"),
        (["limits", "exces"], "scale", "limits.exces is an unknown key; did you mean 'excess'?"),
        (["limits", "a\nb"], 1, "limits.'a\\nb' is an unknown key"),
        (["\ud800"], 1, "'\\ud800' is invalid"),
        (["real_share"], 1, "real_share=1 is out of range"),
        (["min_examples"], 0, "min_examples=0 is too small"),
        (["regression"], 3, "must be an object"),
    ],
)
def test_read_policy_names_invalid_key(tmp_path, where, value, message):
    path, data = tmp_path / "policy.json", json.loads(Policy().to_json())
    change(data, where, value)
    path.write_text(json.dumps(data))
    with pytest.raises(UserError) as caught:
        read_policy(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", '{"version": 1, "version": 1}', "[" * 100_000, "NaN"])
def test_read_policy_rejects_other_files(tmp_path, text):
    path = tmp_path / "policy.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="nothing is adapted"):
        read_policy(path)


def test_read_policy_requires_a_file(tmp_path):
    with pytest.raises(UserError, match="without one nothing is adapted"):
        read_policy(tmp_path / "policy.json")


def test_read_policy_keeps_integer_amounts(tmp_path):
    data = json.loads(Policy().to_json())
    data["limits"]["learning_rate"] = 1
    (tmp_path / "policy.json").write_text(json.dumps(data))
    assert json.loads(read_policy(tmp_path / "policy.json").to_json()) == data
    assert '"learning_rate": 1,' in read_policy(tmp_path / "policy.json").to_json()  # the log holds its hash


def granted(ledger, policy, asked, now, user="ada", each=10):
    found = permit(policy, ledger, user, "testbed", asked, each, now)
    ledger.note({"kind": "grant", "at": now, "user": user, "questions": found.granted, "tokens": found.granted * each})
    return found.granted


def test_permit_limits_each_user_per_hour():
    ledger, policy = Ledger(), Policy(rules=(Permission(questions_per_hour=10, tokens_per_hour=75),))
    assert [granted(ledger, policy, 4, now) for now in (0.0, 10.0, 20.0)] == [4, 3, 0]  # the token budget ends first
    assert granted(ledger, policy, 4, 20.0, user="eve") == 4
    assert granted(ledger, policy, 4, 3599.0) == 0
    assert granted(ledger, policy, 9, 3601.0) == 4
    assert granted(ledger, policy, 9, 50.0) == 0  # setting the clock back frees no budget


def test_permit_limits_questions_per_hour():
    ledger, policy = Ledger(), Policy(rules=(Permission(questions_per_hour=5, tokens_per_hour=10**6),))
    assert [granted(ledger, policy, 4, now) for now in (0.0, 10.0, 20.0)] == [4, 1, 0]


def test_permit_applies_first_matching_rule():
    policy = Policy(
        rules=(Permission(users=("eve",), questions_per_hour=0), Permission(tasks=("testbed",), tokens_per_question=9))
    )
    assert permit(policy, Ledger(), "eve", "testbed", 1, 5, 0.0).granted == 0
    assert permit(policy, Ledger(), "ada", "testbed", 1, 5, 0.0).granted == 1
    assert "over the limit 9" in permit(policy, Ledger(), "ada", "testbed", 1, 10, 0.0).reason
    assert "no rule" in permit(policy, Ledger(), "ada", "math", 1, 5, 0.0).reason


def test_within_refuses_optimizers_with_their_own_rate():
    for excess in ("refuse", "scale"):
        refused = within(Config(inner_optimizer="sgd(5.0)"), UpdateLimits(excess=excess))[1]
        assert refused == "inner_optimizer 'sgd(5.0)' sets its own learning rate, which the limit 0.5 cannot bound"


def test_within_refuses_or_lowers_settings():
    config = Config(inner_steps=9, inner_lr=3.0)
    assert within(config, UpdateLimits())[1] == "inner_steps 9 is over the limit 4; inner_lr 3 is over the limit 0.5"
    lowered, refused = within(config, UpdateLimits(excess="scale"))
    assert (lowered.inner_steps, lowered.inner_lr, refused) == (4, 0.5, "")
    assert within(config, UpdateLimits(steps=0, excess="scale"))[1].startswith("inner_steps 9 is over the limit 0")


@pytest.mark.parametrize("losses", [[1.0, float("nan")], [float("inf"), 1.0], [1.0, 2.5, 0.1], [0.0, 0.1]])
@pytest.mark.parametrize("excess", ["refuse", "scale"])
def test_judge_rejects_exploding_losses(losses, excess):
    assert not judge(losses, {"all": 0.01}, UpdateLimits(excess=excess)).used


@pytest.mark.parametrize(
    ("norm", "excess", "used", "factor"),
    [
        (0.1, "refuse", True, 1.0),
        (0.3, "refuse", False, 1.0),
        (0.3, "scale", True, 0.5),
        (float("nan"), "scale", False, 1.0),
    ],
)
def test_judge_refuses_or_scales_large_updates(norm, excess, used, factor):
    found = judge([1.0, 0.5], {"all": norm}, dataclasses.replace(UpdateLimits(), excess=excess))
    assert (found.used, found.factor) == (used, factor)
