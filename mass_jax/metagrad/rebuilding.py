"""Copies of optax optimizers with a changed setting or without a part, to find out which of them is at fault.

The functions of optax keep their settings in closures, which a copy can replace.
"""

import types
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

_Change = Callable[[types.FunctionType], Any]  # returns None to keep a function


def parts(node: Any) -> list[types.FunctionType]:
    """Returns the update functions of the transformations in an optimizer, without those that contain others.

    >>> import optax
    >>> [name_of(part) for part in parts(optax.chain(optax.clip(1.0), optax.sgd(0.1)))]
    ['clip', 'identity', 'scale']
    """
    updates = [each for each in _functions(node, []) if each.__qualname__.endswith(".<locals>.update_fn")]
    return [
        each for each in updates if not any(other in updates for other in _functions(list(_values(each).values()), []))
    ]


def holders(node: Any, name: str) -> dict[types.FunctionType, Any]:
    """Returns the functions in an optimizer that have a setting, with its values.

    >>> import optax
    >>> list(holders(optax.adam(0.1, eps_root=0.01), "eps_root").values())
    [0.01]
    """
    found = {each: _values(each).get(name) for each in _functions(node, [])}
    return {each: value for each, value in found.items() if isinstance(value, bool | int | float)}


def name_of(part: types.FunctionType) -> str:
    """Returns the name of the function of optax that made another one."""
    return part.__qualname__.split(".")[0]


def with_setting(optimizer: Any, functions: Collection[types.FunctionType], name: str, value: Any) -> Any:
    """Returns an optimizer with another value of a setting in some of its `holders`."""
    return _mapped(optimizer, lambda each: _copy(each, {**_values(each), name: value}) if each in functions else None)


def without(optimizer: Any, part: types.FunctionType) -> Any:
    """Returns an optimizer in which a part leaves the updates and its state unchanged."""

    def unchanged(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return updates, state

    return _mapped(optimizer, lambda function: unchanged if function is part else None)


def _functions(node: Any, seen: list[Any]) -> Iterator[types.FunctionType]:
    """Yields the functions of optax in and below a node once."""
    if any(node is other for other in seen):
        return
    if isinstance(node, types.FunctionType):
        seen.append(node)
        if node.__module__.startswith("optax."):
            yield node
        yield from _functions(list(_values(node).values()), seen)
    elif isinstance(node, tuple | list):
        for child in node:
            yield from _functions(child, seen)


def _mapped(node: Any, change: _Change, above: tuple[Any, ...] = ()) -> Any:
    """Replaces functions in and below a node; nodes without a change stay the same objects."""
    if any(node is other for other in above):
        return node  # a function that calls itself
    if isinstance(node, types.FunctionType):
        if (new := change(node)) is not None:
            return new
        old = _values(node)
        values = {name: _mapped(value, change, (*above, node)) for name, value in old.items()}
        return node if all(values[name] is old[name] for name in old) else _copy(node, values)
    if isinstance(node, tuple):
        children = [_mapped(child, change, above) for child in node]
        if all(new is old for new, old in zip(children, node, strict=True)):
            return node
        return type(node)(*children) if hasattr(node, "_fields") else tuple(children)
    return node


def _values(function: types.FunctionType) -> dict[str, Any]:
    """Returns the variables of a function's closure by name; those without a value are left out."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found


def _copy(function: types.FunctionType, values: Mapping[str, Any]) -> types.FunctionType:
    """Returns a function with other values in its closure."""
    old = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cells = tuple(types.CellType(values[name]) if name in values else cell for name, cell in old.items())
    new = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, cells or None
    )
    new.__kwdefaults__, new.__qualname__ = function.__kwdefaults__, function.__qualname__
    new.__module__ = function.__module__
    return new
