"""Describes a measured reward in log lines: its numbers, its weaknesses, and the flags to change."""

import math
from collections.abc import Mapping, Sequence

from mass_jax import metagrad as mg
from mass_jax import optax_functions
from mass_jax.config import Config
from mass_jax.expression import CUSTOM
from mass_jax.metagrad import signal
from mass_jax.metagrad.signal import verdict
from mass_jax.method import adapt
from mass_jax.training.inner_setting import InnerSetting

FLAGS: Mapping[signal.Setting, str] = {
    "eps_root": "--inner_eps_root",
    "rate": "--inner_lr",
    "optimizer": "--inner_optimizer",
    "steps": "--inner_steps",
    "clipping": "a smaller --inner_lr",
    "precision": "--base_dtype=float32",
    "examples": "--num_examples",
}
CLIPS: Mapping[str, str] = {
    "max_norm": "clip_by_global_norm",
    "max_delta": "clip",
    "threshold": "clip_by_block_rms",
    "clipping": "adaptive_grad_clip",
}
MAX_EPS_ROOT = 1.0  # above it, the steps of the compared settings would be too small to adapt


def describe(
    label: str,
    report: mg.SignalReport,
    alternatives: Mapping[str, mg.SignalReport],
    config: Config,
    *,
    gold: bool,
    unsolved_share: float = 0.0,
) -> list[str]:
    """Returns three lines: the numbers, the weaknesses with the flags to change, and other settings or the limits.

    Args:
        label: name of the training.
        report: report of the setting in use.
        alternatives: reports of other settings on the same problems, by label.
        config: settings of the run.
        gold: whether the outer loss is that of gold solutions.
        unsolved_share: share of the problems that no attempt of the adapted model solves.
    """
    found = mg.findings(report)
    lines = [
        f"{label}: rewards of {report.tasks} problems: correlation with leave-one-out {_correlation(report)}, zero-sum "
        f"index {_number(report['zero_sum_index'], 3)}, problems with signal {report['signal_share']:.2f}"
    ]
    if not found:
        return [
            *lines,
            f"{label}: the reward predicts the effect of the examples",
            f"{label}: weak would be a correlation below {verdict.MIN_CORRELATION:g}, or one that less than "
            f"{verdict.MIN_MEASURED_SHARE:g} of the problems have, a zero-sum index below "
            f"{verdict.MIN_ZERO_SUM_INDEX:g}, or signal in less than {verdict.MIN_SIGNAL_SHARE:g} of the problems",
        ]
    weak = ", ".join(f"{f.name} ({f.number} {f.value:.3g}, should be {_bound(f)} {f.limit:g})" for f in found)
    advised = (flags_of(f, report, config.inner_optimizer, gold=gold, unsolved_share=unsolved_share) for f in found)
    flags = dict.fromkeys(flag for each in advised for flag in each)
    for flag in tuple(flags):
        flags.pop(f"a smaller {flag.removeprefix('the ')}", None)  # the same flag
    if config.reward != "leave_one_out" and any(f.name in ("zero-sum", "uncorrelated") for f in found):
        flags |= {"--reward=leave_one_out": None}  # m + 1 adaptations measure the effects themselves
    passing = {name: other["leave_one_out/spearman"] for name, other in alternatives.items() if not mg.findings(other)}
    best = f"; {max(passing, key=lambda name: passing[name])} is not weak" if passing else ""
    lines.append(f"{label}: weak reward: {weak}; change {' or '.join(flags)}{best}")
    if alternatives:
        others = "; ".join(
            f"{name}: correlation {_number(other['leave_one_out/spearman'], 2)}, zero-sum index "
            f"{_number(other['zero_sum_index'], 3)}"
            for name, other in alternatives.items()
        )
        solutions = " with gold solutions" if replaces_attempts(found, gold=gold) else ""
        reward = "" if config.reward == "marginal" else " and with --reward=marginal"
        lines.append(f"{label}: on the same problems{solutions}{reward}, {others}")
    else:
        lines.append(f"{label}: other settings were not measured; experiments.validate --settings compares them")
    return lines


def replaces_attempts(found: Sequence[signal.Finding], *, gold: bool) -> bool:
    """Returns whether gold solutions replace attempts to compare other settings, since these attempts have no signal.

    Args:
        found: weaknesses of the setting in use.
        gold: whether the outer loss of training is that of gold solutions.
    """
    return not gold and any(finding.name == "no signal" for finding in found)


def _correlation(report: mg.SignalReport) -> str:
    """Formats the correlation with leave-one-out, with its interval and the number of problems that have one."""
    value, low, high, tasks = report.numbers["leave_one_out/spearman"]
    if not tasks:
        return "none"
    counted = "" if tasks == report.tasks else f"; in {tasks} problems"
    return f"{value:.2f} ({low:.2f} to {high:.2f}{counted})"


def _number(value: float, digits: int) -> str:
    """Formats a number; "none" if it was not measured."""
    return "none" if math.isnan(value) else f"{value:.{digits}f}"


def flags_of(
    finding: signal.Finding, report: mg.SignalReport, optimizer: str, *, gold: bool, unsolved_share: float = 0.0
) -> tuple[str, ...]:
    """Returns the flags that are most likely to remove a weakness.

    Args:
        finding: the weakness.
        report: the report that has it.
        optimizer: the inner optimizer; flags that it ignores are left out.
        gold: whether the outer loss is that of gold solutions, which does not depend on attempts.
        unsolved_share: share of the problems that no attempt of the adapted model solves. If it is high, adaptation
            may have broken the model, which a smaller rate shows.

    >>> report = mg.SignalReport(8, 32, 0, {}, {})
    >>> weak = signal.Finding("zero-sum", "zero_sum_index", 0.01, 0.1, ("eps_root", "optimizer", "clipping"))
    >>> flags_of(weak, report, "adam", gold=True), flags_of(weak, report, "sgd", gold=True)
    (('--inner_eps_root', '--inner_optimizer'), ('--inner_optimizer', 'a smaller --inner_lr'))
    """
    if finding.name == "no signal":
        if report.examples == 0:
            return "--max_example_tokens", "--model"  # no text parsed
        if not gold:
            mixed = "--dynamic_sampling", "--num_attempts", "--outer=gold"  # all attempts correct or incorrect
            rate = _flag_of("rate", optimizer)
            return (f"a smaller {rate.removeprefix('the ')}", *mixed) if rate and unsolved_share > 0.5 else mixed
    flags = [flag for name in finding.settings if (flag := _flag_of(name, optimizer))]
    clips = [clip for argument, clip in CLIPS.items() if optax_functions.numbers(optimizer, argument)]
    if clips and finding.name == "zero-sum":
        clipping = f"a greater threshold of {clips[0]} in --inner_optimizer"
        flags = [clipping, *(flag for flag in flags if not flag.startswith("a smaller"))]
    return tuple(dict.fromkeys(flags))[:2]


def _flag_of(name: signal.Setting, optimizer: str) -> str | None:
    """Returns the flag of a setting; None if the optimizer has no such setting."""
    if name == "eps_root":
        if adapt.has_eps_root(optimizer) and not optax_functions.measures(optimizer):
            return FLAGS[name]
        in_text = optax_functions.measures(optimizer) or optax_functions.numbers(optimizer, optax_functions.EPS_ROOT)
        return "a greater eps_root in --inner_optimizer" if in_text else None
    if name in ("rate", "clipping") and not adapt.has_rate(optimizer):
        rate = FLAGS["optimizer"] if optimizer == CUSTOM else "the learning rate in --inner_optimizer"
        return rate if name == "rate" else f"a smaller {rate.removeprefix('the ')}" if optimizer != CUSTOM else None
    return FLAGS[name]


def _bound(finding: signal.Finding) -> str:
    """Returns which side of its limit a number should be on; the share of problems that are not finite is the worst."""
    return "at most" if finding.name == "not finite" else "at least"


def nearby(setting: InnerSetting, *, slower: bool = False) -> tuple[InnerSetting, ...]:
    """Returns settings to compare a weak one with: weaker clipping, and greater eps_root or else smaller steps.

    A number in the expression is replaced by one of the setting, so that the settings share compiled programs.

    Args:
        setting: the weak one.
        slower: whether to add much smaller steps, for a model that adaptation may have broken.

    >>> [other.eps_root for other in nearby(InnerSetting("adam", 0.03, 1e-8, 2))]
    [1e-06, 0.0001, 0.01]
    >>> nearby(InnerSetting("adam(eps_root=1e-2)", 0.03, 1e-8, 2))[0]
    InnerSetting(optimizer='adam', rate=0.03, eps_root=0.1, steps=2)
    """
    return (
        (_slower(setting, (4, 16)) if slower else ())
        + _less_clipped(setting)
        + (_smoother(setting) or (() if slower else _slower(setting)))
    )


def _less_clipped(setting: InnerSetting) -> tuple[InnerSetting, ...]:
    """Returns a setting with 10 times the thresholds of clipping, and one with 100 times; none without clipping."""
    found = [setting._replace(optimizer=_with_thresholds(setting.optimizer, factor)) for factor in (10, 100)]
    return tuple(other for other in found if other.optimizer != setting.optimizer)


def _with_thresholds(text: str, factor: float) -> str:
    """Returns an expression with its thresholds of clipping multiplied by a factor."""
    for argument in CLIPS:
        if optax_functions.numbers(text, argument):
            text = optax_functions.with_numbers(text, argument, lambda value: float(f"{value * factor:g}"))
    return text


def _smoother(setting: InnerSetting) -> tuple[InnerSetting, ...]:
    """Returns settings with greater eps_root, at most `MAX_EPS_ROOT`; none without eps_root."""
    given = optax_functions.numbers(setting.optimizer, optax_functions.EPS_ROOT)
    if not adapt.has_eps_root(setting.optimizer):
        if not given:
            return ()
        text = optax_functions.with_numbers(setting.optimizer, optax_functions.EPS_ROOT, lambda _: None)
        setting = setting._replace(optimizer=text, eps_root=max(given))
    factors = (1e2, 1e4, 1e6) if setting.eps_root * 1e4 <= MAX_EPS_ROOT else (10, 100)
    values = [float(f"{(setting.eps_root or 1e-8) * factor:g}") for factor in factors]
    return tuple(setting._replace(eps_root=value) for value in values if value <= MAX_EPS_ROOT)


def _slower(setting: InnerSetting, factors: Sequence[float] = (2, 4)) -> tuple[InnerSetting, ...]:
    """Returns settings with smaller learning rates; none if it is a schedule or the optimizer is from Python."""
    if not adapt.has_rate(setting.optimizer):
        given = optax_functions.numbers(setting.optimizer, optax_functions.RATE)
        if len(given) != 1:
            return ()
        text = optax_functions.with_numbers(setting.optimizer, optax_functions.RATE, lambda _: None)
        setting = setting._replace(optimizer=text, rate=given[0])
    return tuple(setting._replace(rate=setting.rate / factor) for factor in factors)
