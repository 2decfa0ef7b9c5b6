"""The policy: what is absent, unknown or malformed allows nothing; budgets hold over an hour."""

import dataclasses
import json

import pytest

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.serving.guards.bounds import UpdateLimits, judge, within
from mass_jax.serving.guards.policy import Ledger, Permission, Policy, permit, read_policy


def test_the_printed_policy_is_read_as_it_is(tmp_path):
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
        (["version"], 2, "version must be 1"),
        (["rules"], None, "lacks 'rules'"),
        (["rules"], [], "a list that is not empty"),
        (["rules", 0, "users"], "root", "rules[0].users must be a list"),
        (["rules", 0, "users"], [7], "list of names"),
        (["rules", 0, "questions_per_hour"], -1, "whole number of 0 or more"),
        (["rules", 0, "questions_per_hour"], 1.5, "whole number"),
        (["rules", 0, "tokens_per_hour"], True, "whole number"),
        (["gates", "parsing"], {}, "gate 'parsing' is unknown; did you mean 'parse'?"),
        (["gates", "answer"], {"agreement": 1}, "unknown setting 'agreement'; did you mean 'min_agreement'?"),
        (["gates", "answer"], {"samples": "many"}, "gates.answer.samples must be a number"),
        (["gates", "parse"], {"x": 1}, "it has none"),
        (["gates"], ["parse"], "object of objects"),
        (["limits", "loss_ratio"], "NaN", "must be a number"),
        (["limits", "excess"], "ignore", "give 'refuse' or 'scale'"),
        (["limits", "exces"], "scale", "unknown key 'exces'; did you mean 'excess'?"),
        (["real_share"], 1, "is no share"),
        (["min_examples"], 0, "adapt to nothing"),
        (["regression"], 3, "must be an object"),
    ],
)
def test_a_malformed_policy_is_refused_in_one_line_that_says_where(tmp_path, where, value, message):
    path, data = tmp_path / "policy.json", json.loads(Policy().to_json())
    change(data, where, value)
    path.write_text(json.dumps(data))
    with pytest.raises(UserError) as caught:
        read_policy(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", '{"version": 1, "version": 1}', "[" * 100_000, "NaN"])
def test_what_is_no_policy_allows_nothing(tmp_path, text):
    path = tmp_path / "policy.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="nothing is adapted"):
        read_policy(path)


def test_an_absent_policy_allows_nothing(tmp_path):
    with pytest.raises(UserError, match="without one nothing is adapted"):
        read_policy(tmp_path / "policy.json")


def granted(ledger, policy, asked, now, user="ada", each=10):
    found = permit(policy, ledger, user, "testbed", asked, each, now)
    ledger.note({"kind": "grant", "at": now, "user": user, "questions": found.granted, "tokens": found.granted * each})
    return found.granted


def test_budgets_hold_over_any_hour_and_for_each_user():
    ledger, policy = Ledger(), Policy(rules=(Permission(questions_per_hour=10, tokens_per_hour=75),))
    assert [granted(ledger, policy, 4, now) for now in (0.0, 10.0, 20.0)] == [4, 3, 0]  # tokens end first
    assert granted(ledger, policy, 4, 20.0, user="eve") == 4
    assert granted(ledger, policy, 4, 3599.0) == 0
    assert granted(ledger, policy, 9, 3601.0) == 4
    assert granted(ledger, policy, 9, 50.0) == 0  # a clock that was set back frees nothing


def test_questions_end_before_tokens_where_they_are_fewer():
    ledger, policy = Ledger(), Policy(rules=(Permission(questions_per_hour=5, tokens_per_hour=10**6),))
    assert [granted(ledger, policy, 4, now) for now in (0.0, 10.0, 20.0)] == [4, 1, 0]


def test_the_first_rule_that_names_user_and_task_holds():
    policy = Policy(
        rules=(Permission(users=("eve",), questions_per_hour=0), Permission(tasks=("testbed",), tokens_per_question=9))
    )
    assert permit(policy, Ledger(), "eve", "testbed", 1, 5, 0.0).granted == 0
    assert permit(policy, Ledger(), "ada", "testbed", 1, 5, 0.0).granted == 1
    assert "over the limit 9" in permit(policy, Ledger(), "ada", "testbed", 1, 10, 0.0).reason
    assert "no rule" in permit(policy, Ledger(), "ada", "math", 1, 5, 0.0).reason


def test_steps_and_rate_are_refused_or_lowered():
    config = Config(inner_steps=9, inner_lr=3.0)
    assert within(config, UpdateLimits())[1] == "inner_steps 9 is over the limit 4; inner_lr 3 is over the limit 0.5"
    lowered, refused = within(config, UpdateLimits(excess="scale"))
    assert (lowered.inner_steps, lowered.inner_lr, refused) == (4, 0.5, "")
    assert within(config, UpdateLimits(steps=0, excess="scale"))[1].startswith("inner_steps 9 is over the limit 0")


@pytest.mark.parametrize("losses", [[1.0, float("nan")], [float("inf"), 1.0], [1.0, 2.5, 0.1], [0.0, 0.1]])
@pytest.mark.parametrize("excess", ["refuse", "scale"])
def test_a_loss_that_explodes_or_is_not_finite_stops_the_update(losses, excess):
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
def test_a_large_update_is_refused_or_scaled(norm, excess, used, factor):
    found = judge([1.0, 0.5], {"all": norm}, dataclasses.replace(UpdateLimits(), excess=excess))
    assert (found.used, found.factor) == (used, factor)
