"""Lazy package namespaces, whose names are imported on first use."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attach(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Builds `__getattr__`, `__dir__` and `__all__` for a package.

    Args:
        package: `__name__` of the package.
        names: map from public names to the submodules that define them; a name that maps to itself is a submodule.

    Returns:
        The three values, to be assigned in the `__init__` of the package.

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
