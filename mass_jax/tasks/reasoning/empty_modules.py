"""Imports of packages whose own dependencies are slow to import and not used."""

import contextlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence


class _Empty(types.ModuleType):
    """Module in which every public name is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Provides empty modules for some packages and everything below them.

    Args:
        packages: names of the packages.
    """

    def __init__(self, packages: Sequence[str]):
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the specification of an empty module, or None for other packages."""
        if fullname.partition(".")[0] not in self._packages:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Returns an empty module."""
        return _Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Leaves the module empty."""


@contextlib.contextmanager
def empty_modules(*packages: str) -> Iterator[None]:
    """Imports in the context see empty modules in place of packages that are not imported yet.

    Args:
        *packages: names of packages that the imported code needs to exist, but does not use.

    >>> with empty_modules("slow_plots"):
    ...     from slow_plots.figures import Axes
    >>> Axes, "slow_plots" in sys.modules
    (None, False)
    """
    missing = [name for name in packages if name not in sys.modules]
    finder = _Finder(missing)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in missing]:
            del sys.modules[name]
