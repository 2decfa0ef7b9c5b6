"""Names what is wrong with a reward and which setting to change."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from mass_jax.metagrad.signal.report import SignalReport

Name = Literal[
    "not finite",
    "no signal",
    "not measured",
    "nearly constant",
    "zero-sum",
    "uncorrelated",
    "not smooth",
    "imprecise",
]
Setting = Literal["eps_root", "rate", "optimizer", "steps", "clipping", "precision", "examples"]

# Thresholds. On the testbed, SGD 0.2 has a correlation of .97 with leave-one-out and a zero-sum index of .34 to .37;
# Adam 0.03 with eps_root=1e-8 has .40 and .001, and trains MASS to 61 % where SGD reaches 89 %. Settings of Adam with
# correlations of .70, .84 and .88 end 13, 2 and 8 points below SGD (docs/guides/inner_optimizer.md).
MIN_CORRELATION = 0.8
MIN_ZERO_SUM_INDEX = 0.1
MIN_SIGNAL_SHARE = 0.5
MIN_MEASURED_SHARE = 0.5  # of tasks in which rewards and effects both vary, so that they have a correlation
MIN_SPREAD = 1e-3  # below it, float32 rounding decides the order of the rewards of a task
MIN_METASMOOTHNESS = 0.5
MIN_COSINE = 0.95


@dataclasses.dataclass(frozen=True)
class Finding:
    """One weakness of a reward.

    Attributes:
        name: kind of the weakness.
        number: name of the number of the report that shows it; "not_finite" is the share of tasks whose rewards or
            effects are not finite, and "correlated_share" the share of tasks that have a correlation.
        value: its value.
        limit: the threshold that it misses.
        settings: settings to change, the most promising first.
        better: alternatives without this weakness, by label, with their values of the number; the best first.
    """

    name: Name
    number: str
    value: float
    limit: float
    settings: tuple[Setting, ...]
    better: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class _Check:
    """A number of the report, its smallest acceptable value, and the settings that change it."""

    name: Name
    number: str
    limit: float
    settings: tuple[Setting, ...]


_CHECKS = (
    _Check("no signal", "signal_share", MIN_SIGNAL_SHARE, ("examples", "steps", "rate")),
    _Check("nearly constant", "spread", MIN_SPREAD, ("rate", "examples")),
    _Check("zero-sum", "zero_sum_index", MIN_ZERO_SUM_INDEX, ("eps_root", "optimizer", "clipping")),
    _Check("uncorrelated", "leave_one_out/spearman", MIN_CORRELATION, ("eps_root", "rate", "optimizer", "steps")),
    _Check("not smooth", "metasmoothness", MIN_METASMOOTHNESS, ("eps_root", "rate", "steps")),
    _Check("imprecise", "cosine_float64", MIN_COSINE, ("eps_root", "precision")),
    _Check("imprecise", "cosine_bfloat16", MIN_COSINE, ("precision", "eps_root")),
)


def findings(report: SignalReport, alternatives: Mapping[str, SignalReport] | None = None) -> tuple[Finding, ...]:
    """Returns the weaknesses of a reward; empty if every number passes its threshold.

    Args:
        report: the report of the setting in use.
        alternatives: reports of other settings on the same tasks, by label.

    Returns:
        The findings, from the most basic on. Numbers that were not measured are not judged. Neither is the gain:
        whether adaptation helps depends on the examples, which training improves.

    >>> from mass_jax.metagrad.signal.correlations import Interval
    >>> def report(value):
    ...     return SignalReport(8, 96, 0, {"zero_sum_index": Interval(value, value, value, 8)}, {})
    >>> [found] = findings(report(0.001), {"sgd 0.2": report(0.5)})
    >>> found.name, found.settings[0], found.better
    ('zero-sum', 'eps_root', (('sgd 0.2', 0.5),))
    """
    found = []
    if report.not_finite:
        share = report.not_finite / report.tasks
        found.append(Finding("not finite", "not_finite", share, 0.0, ("rate", "eps_root", "clipping")))
    skipped = _without_evidence(report)
    if "uncorrelated" in skipped and not report["signal_share"] < MIN_SIGNAL_SHARE:  # NaN: not in the report
        share = report.numbers["leave_one_out/spearman"].tasks / report.tasks
        found.append(Finding("not measured", "correlated_share", share, MIN_MEASURED_SHARE, ("examples", "rate")))
    for check in _CHECKS:
        if check.number not in report.numbers or check.name in skipped:
            continue
        value = report[check.number]
        if value < check.limit:
            found.append(
                Finding(check.name, check.number, value, check.limit, check.settings, _better(check, alternatives))
            )
    return tuple(found)


def _without_evidence(report: SignalReport) -> set[Name]:
    """Returns what a report cannot show: a correlation in few tasks, or the spread of single examples."""
    correlation = report.numbers.get("leave_one_out/spearman")
    if correlation is None or correlation.tasks >= MIN_MEASURED_SHARE * report.tasks:
        return set()
    return {"uncorrelated", "nearly constant"} if report.examples < 2 * report.tasks else {"uncorrelated"}


def _better(check: _Check, alternatives: Mapping[str, SignalReport] | None) -> tuple[tuple[str, float], ...]:
    """Returns the alternatives that pass a check, ordered by correlation with leave-one-out."""
    passing = [(label, report) for label, report in (alternatives or {}).items() if report[check.number] >= check.limit]
    passing.sort(key=lambda item: -_or_low(item[1]["leave_one_out/spearman"]))
    return tuple((label, report[check.number]) for label, report in passing)


def _or_low(value: float) -> float:
    """Returns a number, with NaN below every other."""
    return -math.inf if math.isnan(value) else value
