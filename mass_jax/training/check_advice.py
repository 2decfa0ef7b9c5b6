"""Describes a measured reward in log lines: its numbers, its weaknesses, and the flags to change."""

from collections.abc import Mapping

from mass_jax import metagrad as mg
from mass_jax.config import Config
from mass_jax.metagrad import signal
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


def describe(
    label: str, report: mg.SignalReport, alternatives: Mapping[str, mg.SignalReport], config: Config, *, gold: bool
) -> list[str]:
    """Returns two or three lines: the numbers, the weaknesses with the flags to change, and other settings.

    Args:
        label: name of the training.
        report: report of the setting in use.
        alternatives: reports of other settings on the same problems, by label.
        config: settings of the run.
        gold: whether the outer loss is that of gold solutions.
    """
    found = mg.findings(report, alternatives)
    correlation = report.numbers["leave_one_out/spearman"]
    lines = [
        f"{label}: rewards of {report.tasks} problems: correlation with leave-one-out {correlation.value:.2f} "
        f"({correlation.low:.2f} to {correlation.high:.2f}), zero-sum index {report['zero_sum_index']:.3f}, problems "
        f"with signal {report['signal_share']:.2f}"
    ]
    if not found:
        return [*lines, f"{label}: the reward predicts the effect of the examples"]
    weak = ", ".join(f"{f.name} ({f.number} {f.value:.3g}, should be {_bound(f)} {f.limit:g})" for f in found)
    flags = dict.fromkeys(flag for f in found for flag in flags_of(f, report, config.inner_optimizer, gold=gold))
    if FLAGS["rate"] in flags:
        flags.pop(FLAGS["clipping"], None)  # the same flag
    lines.append(f"{label}: weak reward: {weak}; change {' or '.join(flags)}")
    if alternatives:
        others = "; ".join(
            f"{name}: correlation {other['leave_one_out/spearman']:.2f}, zero-sum index {other['zero_sum_index']:.3f}"
            for name, other in alternatives.items()
        )
        reward = "" if config.reward == "marginal" else " and with --reward=marginal"
        lines.append(f"{label}: on the same problems{reward}, {others}")
    return lines


def flags_of(finding: signal.Finding, report: mg.SignalReport, optimizer: str, *, gold: bool) -> tuple[str, ...]:
    """Returns the flags that are most likely to remove a weakness.

    Args:
        finding: the weakness.
        report: the report that has it.
        optimizer: the inner optimizer; flags that it ignores are left out.
        gold: whether the outer loss is that of gold solutions, which does not depend on attempts.

    >>> report = mg.SignalReport(8, 32, 0, {}, {})
    >>> weak = signal.Finding("zero-sum", "zero_sum_index", 0.01, 0.1, ("eps_root", "optimizer", "clipping"))
    >>> flags_of(weak, report, "adam", gold=True), flags_of(weak, report, "sgd", gold=True)
    (('--inner_eps_root', '--inner_optimizer'), ('--inner_optimizer', 'a smaller --inner_lr'))
    """
    if finding.name == "no signal":
        if report.examples == 0:
            return "--max_example_tokens", "--model"  # no text parsed
        if not gold:
            return "--dynamic_sampling", "--num_attempts", "--outer=gold"  # all attempts correct or incorrect
    usable = [name for name in finding.settings if name != "eps_root" or adapt.has_eps_root(optimizer)]
    return tuple(FLAGS[name] for name in usable[:2])


def _bound(finding: signal.Finding) -> str:
    """Returns which side of its limit a number should be on; the share of problems that are not finite is the worst."""
    return "at most" if finding.name == "not finite" else "at least"


def nearby(setting: InnerSetting) -> tuple[InnerSetting, ...]:
    """Returns settings to compare a weak one with: greater eps_root, or smaller steps where there is none.

    >>> [other.eps_root for other in nearby(InnerSetting("adam", 0.03, 1e-8, 2))]
    [1e-06, 0.0001, 0.01]
    """
    if adapt.has_eps_root(setting.optimizer):
        return tuple(setting._replace(eps_root=float(f"{setting.eps_root * factor:g}")) for factor in (1e2, 1e4, 1e6))
    if adapt.has_rate(setting.optimizer):
        return tuple(setting._replace(rate=setting.rate / factor) for factor in (2, 4))
    return ()  # the expression gives all numbers, or the optimizer was passed from Python
