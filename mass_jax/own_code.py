"""Objects of the user's own code, named as module:name or file.py:name.

Importing a module runs it, so the names must come from the command line or from a `Config` that the user made, never
from a file that may be someone else's.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import types
from typing import Any

from mass_jax.errors import UserError


def find(text: str, flag: str) -> Any:
    """Imports an object by name.

    Args:
        text: "module:name" or "file.py:name".
        flag: the flag that names it, for error messages.

    Raises:
        UserError: the text has another form, or the module or the object cannot be found; one line with the fix.

    >>> find("mass_jax.sampling:Engine", "--sampler").__name__
    'Engine'
    """
    where, _, name = text.rpartition(":")
    is_file = where.endswith(".py")
    if not name or not where or (where.startswith(".") and not is_file):
        raise UserError(f"{flag}={text} does not name an object; write module:name or file.py:name")
    try:
        module = import_file(where) if is_file else importlib.import_module(where)
    except FileNotFoundError as error:
        raise UserError(f"{flag}={text}: {error}") from error
    except (ImportError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{flag}={text}: {where} cannot be imported ({reason}); run the command where it can be, or give "
            f"file.py:name"
        ) from error
    try:
        return getattr(module, name)
    except AttributeError:
        from mass_jax.config.fields import nearest  # imported here, because the settings import this module

        known = [other for other in dir(module) if not other.startswith("_")]
        raise UserError(f"{flag}={text}: {where} has no {name!r}; {nearest(name, known)}") from None


def call_fault(function: Any, *args: Any, **options: Any) -> str:
    """Returns why an object cannot be called with these arguments; "" if it can, or if its signature is unknown.

    >>> call_fault(lambda model: None, "model", "tokenizer")
    'too many positional arguments'
    """
    if not callable(function):
        return f"{type(function).__name__} cannot be called"
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError as error:
        return str(error)
    except ValueError:  # some classes that are implemented in C have no signature
        return ""
    return ""


def import_file(path: str | os.PathLike[str]) -> types.ModuleType:
    """Imports a Python file under a name of its own; a second import of the file returns the same module.

    Args:
        path: the file.

    Raises:
        FileNotFoundError, ImportError: the file does not exist or is not a Python file; its code may raise anything.
    """
    file = os.path.realpath(os.path.expanduser(path))
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{path} is not a file; give the path of a Python file")
    name = f"own_code_{hashlib.sha256(file.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file; give one")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
