"""Findings: each threshold, and alternatives ordered by their correlation."""

import numpy as np
import pytest

from mass_jax.metagrad import findings
from mass_jax.metagrad.signal import Effects, Interval, SignalReport, summarize

GOOD = {
    "signal_share": 1.0,
    "spread": 0.9,
    "zero_sum_index": 0.4,
    "leave_one_out/spearman": 0.9,
    "metasmoothness": 0.9,
    "cosine_float64": 1.0,
    "cosine_bfloat16": 1.0,
    "gain": 0.1,
}


def report(**changed):
    numbers = GOOD | {name.replace("__", "/"): value for name, value in changed.items()}
    return SignalReport(8, 96, 0, {name: Interval(v, v, v, 8) for name, v in numbers.items()}, {})


def test_good_report_has_no_findings():
    assert findings(report()) == ()


@pytest.mark.parametrize(
    ("changed", "name", "setting"),
    [
        ({"signal_share": 0.3}, "no signal", "examples"),
        ({"spread": 1e-5}, "nearly constant", "rate"),
        ({"zero_sum_index": 0.001}, "zero-sum", "eps_root"),
        ({"leave_one_out__spearman": 0.35}, "uncorrelated", "eps_root"),
        ({"metasmoothness": 0.1}, "not smooth", "eps_root"),
        ({"cosine_float64": 0.5}, "imprecise", "eps_root"),
        ({"cosine_bfloat16": 0.5}, "imprecise", "precision"),
    ],
)
def test_finding_names_weakness_and_setting(changed, name, setting):
    (found,) = findings(report(**changed))
    assert (found.name, found.settings[0]) == (name, setting)
    assert found.value == next(iter(changed.values()))


def test_alternatives_are_ordered_by_correlation():
    others = {
        "a": report(leave_one_out__spearman=0.85),
        "b": report(leave_one_out__spearman=0.95),
        "c": report(leave_one_out__spearman=0.2),
    }
    (found,) = findings(report(leave_one_out__spearman=0.35), others)
    assert found.better == (("b", 0.95), ("a", 0.85))


def test_harm_of_examples_is_not_a_finding():
    assert findings(report(gain=-0.1)) == ()


def test_unmeasured_numbers_are_not_judged():
    assert findings(SignalReport(8, 96, 0, {}, {})) == ()


@pytest.mark.parametrize(
    ("correlated", "examples", "names"),
    [(3, 96, ["not measured", "nearly constant"]), (3, 12, ["not measured"]), (4, 96, ["nearly constant"])],
)
def test_correlation_of_few_tasks_is_not_judged(correlated, examples, names):
    """With fewer than two examples per task, their spread says nothing either."""
    numbers = report(leave_one_out__spearman=0.9, spread=0.0).numbers
    numbers = numbers | {"leave_one_out/spearman": Interval(0.9, 0.9, 0.9, correlated)}
    found = findings(SignalReport(8, examples, 0, numbers, {}))
    assert [finding.name for finding in found] == names


def test_missing_correlation_is_found():
    examples = np.zeros((8, 4))
    effects = Effects(np.ones(8), np.zeros(8), np.arange(32.0).reshape(8, 4), examples)  # all effects are equal
    found = findings(summarize(effects, np.ones((8, 4))))
    assert [finding.name for finding in found] == ["not measured"]
    assert (found[0].number, found[0].value) == ("correlated_share", 0)
