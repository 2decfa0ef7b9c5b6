"""Fields of the settings: declaration, help, allowed values, and checks with one-line errors."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any


def setting(
    default: Any, help: str, choices: tuple[str, ...] = (), minimum: float | None = None, path: bool = False
) -> Any:
    """Declares a dataclass field with its help text, allowed values or items, minimum, and whether it may be a path."""
    metadata = {"help": help, "choices": choices, "minimum": minimum, "path": path}
    return dataclasses.field(default=default, metadata=metadata)


def nearest(value: str, known: Iterable[str]) -> str:
    """Suggests the known value closest to a mistyped one, for use in an error message.

    >>> nearest("tyni", ["tiny", "llama"])
    "did you mean 'tiny'? Known: llama, tiny"
    """
    close = difflib.get_close_matches(value, list(known := sorted(known)), n=1, cutoff=0.3)
    return (f"did you mean {close[0]!r}? " if close else "") + f"Known: {', '.join(known)}"


def names_code(text: str) -> bool:
    """Returns whether a setting names an object of the user's own code, as module:name or file.py:name.

    >>> names_code("mine.py:make"), names_code("testbed")
    (True, False)
    """
    return ":" in text


def check(field: dataclasses.Field, value: Any) -> None:
    """Raises a ValueError, one line that names the flag, if a value has the wrong type or is not allowed."""
    if not _has_type_of(field.default, value):
        kind = type(field.default).__name__
        raise ValueError(f"--{field.name}={value!r} must be {kind}, like {field.default!r}")
    choices, minimum = field.metadata["choices"], field.metadata["minimum"]
    if choices:
        for item in value if isinstance(value, tuple) else (value,):
            if item not in choices:
                raise ValueError(f"--{field.name}={item!r} is unknown; {nearest(str(item), choices)}")
    if isinstance(value, tuple) and not value:
        raise ValueError(f"--{field.name} is empty; name at least one")
    if minimum is not None and not value >= minimum:
        raise ValueError(f"--{field.name}={value} is below its minimum {minimum:g}")


def _has_type_of(default: Any, value: Any) -> bool:
    """Returns whether a value has the type of a setting's default; integers count as floats, booleans do not."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_has_type_of(default[0], item) for item in value)
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, int | float if isinstance(default, float) else type(default))
