"""Validation of the settings in a model's JSON files."""

import dataclasses
import reprlib
from collections.abc import Callable
from typing import Any

from mass_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of value that a setting may have.

    Attributes:
        allows: returns whether a value is of this kind.
        expected: description of the kind in error messages.
    """

    allows: Callable[[Any], bool]
    expected: str


def is_number(value: Any) -> bool:
    """Returns whether a value is a finite number below 1e30 in size, and not a boolean.

    >>> [is_number(value) for value in (3, 1e-5, "3", True, float("nan"), 10**400)]
    [True, True, False, False, False, False]
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


COUNT = Kind(lambda value: type(value) is int and 0 < value < 2**31, "an integer of at least 1")
NATURAL = Kind(lambda value: type(value) is int and 0 <= value < 2**31, "an integer of at least 0")
LAYERS = Kind(lambda value: type(value) is int and 0 < value <= 10_000, "an integer of at least 1 and at most 10000")
POSITIVE = Kind(lambda value: is_number(value) and value > 0, "a positive number")
NOT_NEGATIVE = Kind(lambda value: is_number(value) and value >= 0, "a number of at least 0")
SWITCH = Kind(lambda value: type(value) is bool, "true or false")
NAME = Kind(lambda value: isinstance(value, str), "a name")


def token(vocabulary: int) -> Kind:
    """Returns the kind of token ids below a vocabulary size."""
    return Kind(lambda value: type(value) is int and 0 <= value < vocabulary, f"a token id from 0 to {vocabulary - 1}")


def check(key: str, value: Any, kind: Kind) -> Any:
    """Validates the value of a setting, and returns it.

    Args:
        key: name of the setting, for the error message.
        value: value in the file.
        kind: kind that it must be of.

    Raises:
        UserError: the value is not of this kind.

    >>> check("hidden_size", 64, COUNT)
    64
    """
    if not kind.allows(value):
        raise UserError(f"{key} is {reprlib.repr(value)}: give {kind.expected}")
    return value
