"""Bounds on an update: number of steps, learning rate, relative norm and inner losses. Pure functions."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from mass_jax.config import Config
from mass_jax.method import adapt


@dataclasses.dataclass(frozen=True)
class UpdateLimits:
    """Limits on an update.

    Attributes:
        steps: largest number of inner steps K.
        learning_rate: highest inner learning rate.
        relative_norm: largest |AB| / |W| over all adapted projections.
        loss_ratio: largest inner loss after any step, as a multiple of the loss before the first.
        excess: "refuse" an update that exceeds steps, rate or norm, or "scale" it down to the limit.
    """

    steps: int = 4
    learning_rate: float = 0.5
    relative_norm: float = 0.15
    loss_ratio: float = 2.0
    excess: Literal["refuse", "scale"] = "refuse"


class Judged(NamedTuple):
    """Verdict on an update.

    Attributes:
        used: True if the update may be used.
        factor: factor to scale it by first.
        reason: why it is not used.
    """

    used: bool
    factor: float = 1.0
    reason: str = ""


def within(config: Config, limits: UpdateLimits) -> tuple[Config, str]:
    """Checks the settings against the limits on steps and learning rate.

    Args:
        config: settings.
        limits: limits on an update.

    Returns:
        The settings to adapt with, and why they are refused ("" if they are not). With `excess="scale"` they are
        lowered to the limits.

    >>> within(Config(inner_steps=9), UpdateLimits())[1]
    'inner_steps 9 is over the limit 4'
    >>> within(Config(inner_steps=9), UpdateLimits(excess="scale"))[0].inner_steps
    4
    """
    if not adapt.has_rate(config.inner_optimizer):
        return config, (
            f"inner_optimizer {config.inner_optimizer!r} sets its own learning rate, which the limit "
            f"{limits.learning_rate:g} cannot bound"
        )
    over: dict[str, tuple[Any, Any]] = {
        "inner_steps": (config.inner_steps, limits.steps),
        "inner_lr": (config.inner_lr, limits.learning_rate),
    }
    found = {name: pair for name, pair in over.items() if not pair[0] <= pair[1]}
    if not found:
        return config, ""
    if limits.excess == "scale" and limits.steps >= 1:  # zero steps make no update
        return dataclasses.replace(config, **{name: pair[1] for name, pair in found.items()}), ""
    return config, "; ".join(f"{name} {value:g} is over the limit {limit:g}" for name, (value, limit) in found.items())


def judge(losses: Sequence[float], norms: Mapping[str, float], limits: UpdateLimits) -> Judged:
    """Checks a finished update against the limits.

    Args:
        losses: inner losses before each step and after the last.
        norms: relative norms by projection, and in total ("all").
        limits: limits on an update.

    >>> judge([2.0, 1.0, 0.5], {"all": 0.3}, UpdateLimits(excess="scale"))
    Judged(used=True, factor=0.5, reason='')
    >>> judge([2.0, 9.0, 5.0], {"all": 0.1}, UpdateLimits()).reason
    'the inner loss rose to 4.5 times its start, over the limit 2'
    """
    if not all(map(math.isfinite, [*losses, *norms.values()])):
        return Judged(False, reason="the update is not finite")
    ratio = max(losses[1:], default=0.0) / losses[0] if losses[0] > 0 else math.inf
    if ratio > limits.loss_ratio:
        return Judged(
            False, reason=f"the inner loss rose to {ratio:.3g} times its start, over the limit {limits.loss_ratio:g}"
        )
    if norms["all"] <= limits.relative_norm:
        return Judged(True)
    if limits.excess == "scale":
        return Judged(True, limits.relative_norm / float(norms["all"]))
    return Judged(False, reason=f"relative norm {norms['all']:.3g} is over the limit {limits.relative_norm:g}")
