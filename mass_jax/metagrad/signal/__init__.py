"""Measures whether a meta-gradient predicts the effect of each example, and names what to change if it does not.

Start with `validate`, which returns a `SignalReport`; `findings` reads it.
"""

from mass_jax.metagrad.signal.correlations import Interval
from mass_jax.metagrad.signal.effects import Adaptation, Effects, Options, Tasks, losses, rewards
from mass_jax.metagrad.signal.report import RESAMPLES, SignalReport, summarize
from mass_jax.metagrad.signal.validate import measure, validate
from mass_jax.metagrad.signal.verdict import Finding, Setting, findings

__all__ = [
    "RESAMPLES",
    "Adaptation",
    "Effects",
    "Finding",
    "Interval",
    "Options",
    "Setting",
    "SignalReport",
    "Tasks",
    "findings",
    "losses",
    "measure",
    "rewards",
    "summarize",
    "validate",
]
