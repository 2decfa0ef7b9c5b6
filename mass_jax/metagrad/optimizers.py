"""Which optax optimizers can stand in an inner loop that starts at LoRA's zero; every line is held to by test."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import optax


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
_SIGN = "it moves by the sign of the gradient, whose derivative is zero: the meta-gradient vanishes"
_ZERO_NORM = "it divides by the root of a statistic that is zero where the gradient is: the meta-gradient is NaN"
_VALUE = "its update needs the loss itself, not only the gradient"

_PLAIN = (
    "sgd", "adabelief", "adadelta", "adagrad", "adamax", "adamaxw", "adan", "fromage", "lars",
    "optimistic_gradient_descent", "rmsprop", "sm3", "yogi", "contrib.schedule_free_sgd",
)  # fmt: skip
_ROOTED = (
    "adam", "adamw", "amsgrad", "lamb", "nadam", "nadamw", "optimistic_adam_v2", "radam", "contrib.ademamix",
    "contrib.simplified_ademamix",
)  # fmt: skip
_NORMED = (
    "adafactor", "novograd", "contrib.dadapt_adamw", "contrib.muon", "contrib.prodigy", "contrib.schedule_free_adamw",
)  # fmt: skip

SUPPORT: Mapping[str, Support] = {
    **dict.fromkeys(_PLAIN, Support(True)),
    **dict.fromkeys(_ROOTED, Support(True, {"eps_root": 1e-8}, _ROOT)),
    **dict.fromkeys(("lion", "rprop", "sign_sgd", "signum"), Support(False, reason=_SIGN)),
    **dict.fromkeys(_NORMED, Support(False, reason=_ZERO_NORM)),
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
    ValueError: inner optimizer 'lion' is refused: it moves by the sign of the gradient, ...; use 'sgd' or 'adamw'
    """
    if name not in SUPPORT:
        raise ValueError(f"inner optimizer {name!r} is unknown; use one of {', '.join(sorted(SUPPORT))}")
    support = SUPPORT[name]
    if not support.exact:
        raise ValueError(f"inner optimizer {name!r} is refused: {support.reason}; use 'sgd' or 'adamw'")
    build: Any = optax
    for part in name.split("."):
        build = getattr(build, part)
    return build(learning_rate, **{**support.settings, **settings})
