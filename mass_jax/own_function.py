"""Loads a function of the user's own code that a setting names, `module:function` or `path/to/file.py:function`.

Only settings name code: command-line flags and `Config`. Names in files, such as the config.json of somebody else's
workdir, must be refused before they get here.
"""

import dataclasses
import functools
import importlib
import os
import traceback
from typing import Any

from mass_jax.errors import UserError
from mass_jax.expression import Call, calls, is_word, map_calls, parse
from mass_jax.own_code import import_file


class CodeNotNamed(UserError):
    """Raised for code that only a file of settings names, not the user."""


@functools.cache
def load(path: str) -> Any:
    """Imports a module or a file and returns an attribute of it; later calls return the same object.

    Args:
        path: `module:function` or `path/to/file.py:function`.

    Raises:
        UserError: the file, the module or the function does not exist, or the code fails; one line.

    >>> load("math:sqrt")(4.0)
    2.0
    """
    module, _, name = path.rpartition(":")
    try:
        found = import_file(module) if module.endswith(".py") else importlib.import_module(module)
    except Exception as error:  # user code may raise anything
        raise UserError(f"{path}: {describe(error)}") from error
    if not hasattr(found, name):
        public = [each for each in vars(found) if not each.startswith("_")]
        raise UserError(f"{path}: {module} has no {name!r}; it has {', '.join(public[:20]) or 'no public names'}")
    return getattr(found, name)


def describe(error: Exception) -> str:
    """Returns an exception in one line, with the line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first[:200]}{place}"


def own_code(text: str) -> list[str]:
    """Returns the paths of the user's own functions in an expression.

    >>> own_code("clip(1.0) | my.py:make(0.1)")
    ['my.py:make']
    """
    return [call.name for call in calls(parse(text)) if call.is_path] if ":" in text else []


def located(text: str) -> str:
    """Returns an expression in which the paths of existing files are absolute; other text is unchanged.

    >>> located("sgd"), located("no_such_file.py:make")
    ('sgd', 'no_such_file.py:make')
    """

    def absolute(call: Call) -> Call:
        file, _, function = call.name.rpartition(":")
        name = f"{os.path.realpath(os.path.expanduser(file))}:{function}"
        usable = file.endswith(".py") and os.path.isfile(os.path.expanduser(file)) and is_word(name)
        return dataclasses.replace(call, name=name) if usable else call

    return str(map_calls(absolute, parse(text))) if own_code(text) else text
