"""Table of optax optimizers and their support for meta-gradients; `support.support_table` verifies each entry."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import optax

from mass_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Support:
    """Support of one optimizer for meta-gradients.

    Attributes:
        exact: whether the meta-gradient is exact with `settings`; otherwise the optimizer is rejected.
        settings: keyword arguments needed for an exact meta-gradient.
        reason: why the settings are needed, or why the optimizer is rejected.
        state: name of the optax state class that identifies the optimizer inside a chain; empty if none does.
        fix: advice for an optimizer with this state that fails the check; derived from the other fields if empty.
    """

    exact: bool
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reason: str = ""
    state: str = ""
    fix: str = ""

    @property
    def advice(self) -> str:
        """Returns one line on what to use instead."""
        if self.fix:
            return self.fix
        settings = ", ".join(f"{name}={value!r}".replace("e-0", "e-") for name, value in self.settings.items())
        return f"{f'pass {settings}' if self.exact else 'use adamw with eps_root=1e-8'} ({self.reason})"


_ROOT = "its default eps_root=0 takes the root of a second moment that is zero where the gradient is zero"
_STEEP = "with its default, the update is so steep at a zero gradient that the derivative holds for no useful gradient"
_SIGN = "it moves by the sign of the gradient, whose derivative is zero, so the meta-gradient vanishes"
_ZERO_NORM = (
    "it divides by the root of a statistic that is zero where the gradient is zero, so the meta-gradient is NaN or "
    "useless"
)
_JUMP = "it divides by a norm of the gradient, so its update jumps at a zero gradient and has no derivative there"
_VALUE = "its update needs the loss value, not only the gradient"

_PLAIN = ("sgd", "adadelta", "adagrad", "adan", "optimistic_gradient_descent", "yogi", "contrib.schedule_free_sgd")
_ROOTED = ("adamw", "nadam", "nadamw", "optimistic_adam_v2", "radam", "contrib.ademamix", "contrib.simplified_ademamix")

SUPPORT: Mapping[str, Support] = {
    **dict.fromkeys(_PLAIN, Support(True)),
    "rmsprop": Support(
        True,
        state="ScaleByRmsState",
        fix="leave eps_in_sqrt=True (the root of a zero second moment has no derivative)",
    ),
    **dict.fromkeys(_ROOTED, Support(True, {"eps_root": 1e-8}, _ROOT)),
    "adam": Support(True, {"eps_root": 1e-8}, _ROOT, "ScaleByAdamState"),
    "amsgrad": Support(True, {"eps_root": 1e-8}, _ROOT, "ScaleByAmsgradState"),
    "adabelief": Support(True, {"eps_root": 1e-8}, _STEEP, "ScaleByBeliefState"),
    **dict.fromkeys(("adamax", "adamaxw"), Support(True, {"eps": 1e-3}, _STEEP)),
    "fromage": Support(True, {"min_norm": 1e-3}, _STEEP),
    **dict.fromkeys(("rprop", "sign_sgd", "signum"), Support(False, reason=_SIGN)),
    "lion": Support(False, reason=_SIGN, state="ScaleByLionState"),
    "adafactor": Support(False, reason=_ZERO_NORM, state="FactoredState"),
    "novograd": Support(False, reason=_ZERO_NORM, state="ScaleByNovogradState"),
    "contrib.muon": Support(False, reason=_ZERO_NORM, state="MuonState"),
    **dict.fromkeys(
        ("contrib.dadapt_adamw", "contrib.prodigy", "contrib.schedule_free_adamw"), Support(False, reason=_ZERO_NORM)
    ),
    **dict.fromkeys(("lamb", "lars"), Support(False, reason=_JUMP)),
    "sm3": Support(
        False,
        reason=_JUMP,
        state="ScaleBySM3State",
        fix="use adagrad (sm3 divides by a root of sums that are zero at the first step)",
    ),
    **dict.fromkeys(("lbfgs", "polyak_sgd"), Support(False, reason=_VALUE)),
}


def make_optimizer(name: str, learning_rate: Any, **settings: Any) -> optax.GradientTransformation:
    """Builds an inner optimizer by its optax name, with the settings that make its meta-gradient exact.

    Args:
        name: key of `SUPPORT`.
        learning_rate: learning rate or schedule.
        **settings: further arguments of the optax function; they override those of the table.

    Returns:
        The optimizer.

    Raises:
        UserError: the optimizer is unknown or rejected; the message gives the reason and an alternative.

    >>> make_optimizer("lion", 1e-3)
    Traceback (most recent call last):
    mass_jax.errors.UserError: inner optimizer 'lion' is rejected: it moves by the sign of the gradient, ...
    """
    if name not in SUPPORT:
        raise UserError(f"inner optimizer {name!r} is unknown; use one of {', '.join(sorted(SUPPORT))}")
    support = SUPPORT[name]
    if not support.exact:
        raise UserError(f"inner optimizer {name!r} is rejected: {support.reason}; use 'sgd' or 'adamw'")
    build: Any = optax
    for part in name.split("."):
        build = getattr(build, part)
    return build(learning_rate, **{**support.settings, **settings})
