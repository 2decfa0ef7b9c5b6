"""Lazy package namespaces: names are imported on first use, so that a package costs what its user needs."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attach(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Builds `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: the package's `__name__`.
        names: public name -> submodule that defines it; a name that maps to itself is a submodule.

    Returns:
        The three values, to be assigned in the package's `__init__`.

    >>> __getattr__, __dir__, __all__ = attach("mass_jax", {"Config": "config", "config": "config"})
    >>> __getattr__("Config").__name__, __all__
    ('Config', ['Config', 'config'])
    """

    def getattribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{names[name]}")
        return module if name == names[name] else getattr(module, name)

    return getattribute, lambda: sorted(names), sorted(names)
