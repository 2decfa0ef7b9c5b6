"""Optax optimizers with an exact meta-gradient, also at a zero gradient; `support.support_table` verifies each line."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import optax

from mass_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Support:
    """What is known of one optimizer.

    Attributes:
        exact: whether its meta-gradient is exact with `settings`; else it is refused.
        settings: keyword arguments that it needs for that.
        reason: why they are needed, or why it is refused.
    """

    exact: bool
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reason: str = ""


_ROOT = "with the default eps_root=0 it takes the root of a second moment that is zero where the gradient is"
_STEEP = "with the default it is so steep at a zero gradient that the derivative holds for no gradient of use"
_SIGN = "it moves by the sign of the gradient, whose derivative is zero: the meta-gradient vanishes"
_ZERO_NORM = (
    "it divides by the root of a statistic that is zero where the gradient is: the meta-gradient is NaN or useless"
)
_JUMP = "its update jumps at a zero gradient, where it divides by the gradient's norm: no derivative exists there"
_VALUE = "its update needs the loss itself, not only the gradient"

_PLAIN = (
    "sgd", "adadelta", "adagrad", "adan", "optimistic_gradient_descent", "rmsprop", "yogi",
    "contrib.schedule_free_sgd",
)  # fmt: skip
_ROOTED = (
    "adam", "adamw", "amsgrad", "nadam", "nadamw", "optimistic_adam_v2", "radam", "contrib.ademamix",
    "contrib.simplified_ademamix",
)  # fmt: skip
_NORMED = (
    "adafactor", "novograd", "contrib.dadapt_adamw", "contrib.muon", "contrib.prodigy", "contrib.schedule_free_adamw",
)  # fmt: skip

SUPPORT: Mapping[str, Support] = {
    **dict.fromkeys(_PLAIN, Support(True)),
    **dict.fromkeys(_ROOTED, Support(True, {"eps_root": 1e-8}, _ROOT)),
    "adabelief": Support(True, {"eps_root": 1e-8}, _STEEP),
    **dict.fromkeys(("adamax", "adamaxw"), Support(True, {"eps": 1e-3}, _STEEP)),
    "fromage": Support(True, {"min_norm": 1e-3}, _STEEP),
    **dict.fromkeys(("lion", "rprop", "sign_sgd", "signum"), Support(False, reason=_SIGN)),
    **dict.fromkeys(_NORMED, Support(False, reason=_ZERO_NORM)),
    **dict.fromkeys(("lamb", "lars", "sm3"), Support(False, reason=_JUMP)),
    **dict.fromkeys(("lbfgs", "polyak_sgd"), Support(False, reason=_VALUE)),
}


def make_optimizer(name: str, learning_rate: Any, **settings: Any) -> optax.GradientTransformation:
    """An inner optimizer by its optax name, with the settings that make its meta-gradient exact.

    Args:
        name: a key of `SUPPORT`.
        learning_rate: rate or schedule.
        **settings: further arguments of the optax function; they win over the table's.

    Raises:
        ValueError: the optimizer is unknown or refused; the message says why and what to take instead.

    >>> make_optimizer("lion", 1e-3)
    Traceback (most recent call last):
    mass_jax.errors.UserError: inner optimizer 'lion' is refused: it moves by the sign of the gradient, ...
    """
    if name not in SUPPORT:
        raise UserError(f"inner optimizer {name!r} is unknown; use one of {', '.join(sorted(SUPPORT))}")
    support = SUPPORT[name]
    if not support.exact:
        raise UserError(f"inner optimizer {name!r} is refused: {support.reason}; use 'sgd' or 'adamw'")
    build: Any = optax
    for part in name.split("."):
        build = getattr(build, part)
    return build(learning_rate, **{**support.settings, **settings})
