"""The values that a setting of a model's JSON files may have."""

import dataclasses
import reprlib
from collections.abc import Callable
from typing import Any

from mass_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Kind:
    """A set of values.

    Attributes:
      allows: whether a value is among them.
      expected: their description in an error.
    """

    allows: Callable[[Any], bool]
    expected: str


def is_number(value: Any) -> bool:
    """Whether a value is a finite number of ordinary size, and not true or false.

    >>> [is_number(value) for value in (3, 1e-5, "3", True, float("nan"), 10**400)]
    [True, True, False, False, False, False]
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


COUNT = Kind(lambda value: type(value) is int and 0 < value < 2**31, "an integer of at least 1")
POSITIVE = Kind(lambda value: is_number(value) and value > 0, "a positive number")
NOT_NEGATIVE = Kind(lambda value: is_number(value) and value >= 0, "a number of at least 0")
SWITCH = Kind(lambda value: type(value) is bool, "true or false")
NAME = Kind(lambda value: isinstance(value, str), "a name")


def token(vocabulary: int) -> Kind:
    """The token ids of a vocabulary.

    Args:
      vocabulary: number of tokens.
    """
    return Kind(lambda value: type(value) is int and 0 <= value < vocabulary, f"a token id from 0 to {vocabulary - 1}")


def check(key: str, value: Any, kind: Kind) -> Any:
    """Returns a setting's value.

    Args:
      key: name of the setting, for the error.
      value: as the file has it.
      kind: the values that it may have.

    Raises:
      UserError: it has another value.

    >>> check("hidden_size", 64, COUNT)
    64
    """
    if not kind.allows(value):
        raise UserError(f"{key} is {reprlib.repr(value)}: give {kind.expected}")
    return value
