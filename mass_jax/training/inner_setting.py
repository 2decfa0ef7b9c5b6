"""Inner optimizers to compare, as text: OPTIMIZER:RATE[:EPS_ROOT[:STEPS]]."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from mass_jax import optax_functions
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.expression import CUSTOM
from mass_jax.metagrad import building
from mass_jax.method import adapt


class InnerSetting(NamedTuple):
    """Inner optimizer to measure.

    Attributes:
        optimizer: expression, such as "adam" or "clip(1.0) | sgd"; see `mg.parse_optimizer`.
        rate: learning rate, where the expression gives none.
        eps_root: constant under the root of the second moment, where the expression gives none.
        steps: number of inner steps K.
    """

    optimizer: str
    rate: float
    eps_root: float
    steps: int

    @classmethod
    def of(cls, config: Config, loop: adapt.LoraLoop) -> "InnerSetting":
        """Returns the setting of a run."""
        return cls(config.inner_optimizer, config.inner_lr, loop.eps_root, config.inner_steps)

    @property
    def label(self) -> str:
        """The setting in words.

        >>> InnerSetting("adam", 0.03, 1e-8, 2).label
        'adam 0.03, eps_root 1e-08, K=2'
        """
        rate = f" {self.rate:g}" if adapt.has_rate(self.optimizer) else ""
        eps_root = f", eps_root {self.eps_root:g}" if adapt.has_eps_root(self.optimizer) else ""
        return f"{self.optimizer}{rate}{eps_root}, K={self.steps}"

    @property
    def last_rate(self) -> float:
        """The learning rate at the last inner step, of the expression if it gives one.

        >>> InnerSetting("sgd(0.4)", 0.2, 1e-8, 2).last_rate, InnerSetting("sgd", 0.2, 1e-8, 2).last_rate
        (0.4, 0.2)
        """
        if self.optimizer == CUSTOM:
            return self.rate
        rates = building.rates_at(building.resolve(self.optimizer, self.rate, self.eps_root), self.steps - 1)
        return math.prod(rates) if rates else self.rate


def with_setting(text: str, config: Config) -> Config:
    """Returns the settings of a run with another inner optimizer, OPTIMIZER:RATE[:EPS_ROOT[:STEPS]].

    Args:
        text: the inner optimizer; EPS_ROOT may be auto.
        config: the settings of the run, which fill missing values.

    Raises:
        UserError: the text has another form, or a value is invalid.

    >>> changed = with_setting("adam:0.03", Config(inner_eps_root="1e-6"))
    >>> changed.inner_optimizer, changed.inner_eps_root
    ('adam', '1e-6')
    """
    name, values = _split(text)
    try:
        optax_functions.check(name)
    except UserError as error:
        raise UserError(f"--settings: {text!r}: {error}") from None
    try:
        rate, root, steps = (*values, *("", "", "")[len(values) :])
        if not rate and not adapt.has_rate(name):
            rate = repr(config.inner_lr)
        changed: dict[str, Any] = {
            "inner_optimizer": name,
            "inner_lr": float(rate),
            "inner_eps_root": root or config.inner_eps_root,
            "inner_steps": int(steps or config.inner_steps),
        }
        return dataclasses.replace(config, **changed)
    except ValueError as error:
        raise UserError(
            f"--settings: {text!r} is not OPTIMIZER:RATE[:EPS_ROOT[:STEPS]], like adam:0.03:1e-6 ({error})"
        ) from None


def _split(text: str) -> tuple[str, list[str]]:
    """Splits a setting at its colons, but not at those of `module:function`, after which comes a name.

    >>> _split("clip(1.0) | my.py:make:0.1:auto")
    ('clip(1.0) | my.py:make', ['0.1', 'auto'])
    """
    name, *values = text.strip().split(":")
    while values and values[0][:1].isidentifier():
        name += f":{values.pop(0)}"
    return name, values


def parse_setting(text: str, config: Config, auto: Callable[[], float]) -> InnerSetting:
    """Reads OPTIMIZER:RATE[:EPS_ROOT[:STEPS]]; missing values are those of the run.

    Args:
        text: the setting.
        config: the settings of the run.
        auto: returns the eps_root of auto; called only for an optimizer that has one.

    Raises:
        UserError: the text has another form, or a value is invalid.

    >>> parse_setting("adam:0.03:1e-6", Config(), auto=lambda: 0.01)
    InnerSetting(optimizer='adam', rate=0.03, eps_root=1e-06, steps=2)
    """
    changed = with_setting(text, config)
    if adapt.measures_eps_root(changed.inner_optimizer, changed.given_eps_root):
        eps_root = auto()
    else:
        eps_root = changed.given_eps_root or adapt.DEFAULT_EPS_ROOT
    return InnerSetting(changed.inner_optimizer, changed.inner_lr, eps_root, changed.inner_steps)
