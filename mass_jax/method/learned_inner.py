"""Hyperparameters of the inner optimizer that meta-training learns through the same sweep as the scores.

The parameter of a positive number is its logarithm; that of a decay rate, which stays between 0 and 1, is its logit.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.expression import Argument, Call, Chain, calls, map_calls
from mass_jax.metagrad import building
from mass_jax.optax_functions import RATE
from mass_jax.types import PyTree

FRACTIONS = ("b1", "b2", "b3", "decay", "momentum")


class _Filled(float):
    """A number that comes from a flag instead of the expression."""


@dataclasses.dataclass(frozen=True)
class LearnedInner:
    """Inner optimizer as a function of learned hyperparameters.

    Attributes:
        text: expression of the optimizer.
        rate: learning rate before training.
        eps_root: eps_root before training.
        names: learned arguments; "inner_lr" is the learning rate.
    """

    text: str
    rate: float
    eps_root: float
    names: tuple[str, ...]

    def start(self) -> dict[str, jax.Array]:
        """Returns the unconstrained parameters before training, float32 scalars.

        Raises:
            UserError: the expression has no such numeric argument, or its number is out of range.

        >>> {name: float(value) for name, value in LearnedInner("sgd", 1.0, 1e-8, ("inner_lr",)).start().items()}
        {'inner_lr': 0.0}
        """
        return {name: jnp.float32(_to_parameter(name, self._number(name))) for name in self.names}

    def values(self, inner: PyTree) -> dict[str, jax.Array]:
        """Returns the hyperparameters of unconstrained parameters."""
        return {name: (jax.nn.sigmoid if name in FRACTIONS else jnp.exp)(inner[name]) for name in self.names}

    def build(self, inner: PyTree) -> optax.GradientTransformation:
        """Builds the optimizer with the learned hyperparameters, which may be traced."""
        return building.build(_replaced(self._chain(), self.values(inner)))

    def frozen(self, config: Config, inner: PyTree) -> Config:
        """Returns the settings with the learned numbers, for use without further learning.

        >>> learned = LearnedInner("adam(b1=0.5)", 0.1, 1e-4, ("inner_lr", "b1"))
        >>> config = learned.frozen(Config(), learned.start())
        >>> round(config.inner_lr, 6), config.inner_optimizer
        (0.1, 'adam(b1=0.5)')
        """
        numbers: dict[str, Any] = {name: float(value) for name, value in self.values(inner).items()}
        flags: dict[str, Any] = {"learn": ""}
        for call in calls(self._chain()):
            for argument in call.arguments:
                if isinstance(argument.value, _Filled):
                    value = numbers.get(_learned_name(argument), _as_number(argument.value))
                    flags |= {"inner_lr": value} if argument.name == RATE else {"inner_eps_root": repr(value)}
        text = str(map_calls(_without_filled, _replaced(self._chain(), numbers)))
        return dataclasses.replace(config, inner_optimizer=text, **flags)

    def _chain(self) -> Chain:
        return building.resolve(self.text, _Filled(self.rate), _Filled(self.eps_root))

    def _number(self, name: str) -> float:
        """Returns the number of an argument before training."""
        found = {
            _as_number(argument.value)
            for call in calls(self._chain())
            for argument in call.arguments
            if _learned_name(argument) == name
        }
        if len(found) != 1:
            has = f"has different values of {name}" if found else f"gives no number for {name}"
            raise UserError(
                f"--learn={name}: --inner_optimizer={self.text!r} {has}; give one number, as in adam(b1=0.9)"
            )
        return found.pop()


def learned_names(text: str) -> tuple[str, ...]:
    """Splits --learn at its commas.

    >>> learned_names("inner_lr, b1")
    ('inner_lr', 'b1')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _as_number(value: Any) -> float:
    return float(value)


def _learned_name(argument: Argument) -> str:
    """Returns the name under which a numeric argument is learned; "" for other values."""
    if isinstance(argument.value, bool) or not isinstance(argument.value, int | float):
        return ""
    return "inner_lr" if argument.name == RATE else argument.name or ""


def _replaced(chain: Chain, values: dict[str, Any]) -> Chain:
    """Replaces numbers by learned values; those of flags stay marked."""

    def of(argument: Argument) -> Argument:
        value = values.get(_learned_name(argument))
        if value is None or (isinstance(argument.value, _Filled) and isinstance(value, float)):
            return argument
        return dataclasses.replace(argument, value=value)

    return map_calls(lambda call: dataclasses.replace(call, arguments=tuple(map(of, call.arguments))), chain)


def _without_filled(call: Call) -> Call:
    """Removes the arguments that flags give."""
    kept = (argument for argument in call.arguments if not isinstance(argument.value, _Filled))
    return dataclasses.replace(call, arguments=tuple(kept))


def _to_parameter(name: str, value: float) -> float:
    """Returns the unconstrained parameter of a number.

    Raises:
        UserError: the number has none.
    """
    if not value > 0 or (name in FRACTIONS and not value < 1):
        limits = "between 0 and 1" if name in FRACTIONS else "above 0"
        raise UserError(f"--learn={name}: its value {value:g} must be {limits} before training; give another")
    return math.log(value / (1 - value)) if name in FRACTIONS else math.log(value)
