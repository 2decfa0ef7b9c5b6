"""Functions of optax that expressions can call, their arguments, and one-line errors for others.

optax is imported on first use, and only for expressions beyond the common names.
"""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mass_jax import own_function
from mass_jax.errors import UserError
from mass_jax.expression import AUTO, CUSTOM, Argument, Call, calls, map_calls, parse

COMMON = ("sgd", "momentum", "adam", "adamw", "amsgrad", "nadam", "radam", "adabelief", "adagrad", "rmsprop", "yogi")
"""Names that need no look-up in optax; momentum is SGD with momentum 0.9."""

ALIASES: Mapping[str, tuple[str, Mapping[str, float]]] = {"momentum": ("sgd", {"momentum": 0.9})}
"""Names that optax does not have: (function of optax, default arguments)."""

DTYPES = ("float32", "bfloat16", "float16", "float64")
RATE, EPS_ROOT = "learning_rate", "eps_root"


@functools.cache
def transformations() -> dict[str, Callable[..., Any]]:
    """Returns the public functions of optax and optax.contrib that build gradient transformations, by name.

    >>> "adam" in transformations() and "contrib.muon" in transformations()
    True
    """
    import optax

    found = {}
    for prefix, module in (("", optax), ("contrib.", optax.contrib)):
        for name, function in inspect.getmembers(module, _is_function):
            returned = str(inspect.signature(function).return_annotation)
            if not name.startswith("_") and "GradientTransformation" in returned:
                found[prefix + name] = function
    return found


@functools.cache
def schedules() -> dict[str, Callable[..., Any]]:
    """Returns the public functions of optax that build schedules, by name.

    >>> "cosine_decay_schedule" in schedules()
    True
    """
    import optax

    return {
        name: function
        for name, function in inspect.getmembers(optax.schedules, _is_function)
        if inspect.signature(function).return_annotation == optax.Schedule and hasattr(optax, name)
    }


def _is_function(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, functools.partial)  # nadam is a partial of adam


def function_of(call: Call) -> Callable[..., Any]:
    """Returns the function of optax that a call names.

    Raises:
        UserError: optax has no such function; the message has the position and the nearest names.
    """
    name = ALIASES[call.name][0] if call.name in ALIASES else call.name
    found = transformations().get(name) or schedules().get(name)
    if found is None:
        known = [*transformations(), *schedules(), *ALIASES]
        raise UserError(f"character {call.position}: {call.name!r} is unknown; {near(call.name, known)}")
    return found


def near(value: str, known: Iterable[str]) -> str:
    """Suggests the known values closest to a mistyped one.

    >>> near("adm", ["adam", "sgd", "adamw"])
    "did you mean 'adam' or 'adamw'?"
    """
    known = sorted(known)
    close = difflib.get_close_matches(value, known, n=3, cutoff=0.5)
    if not close:
        return f"known: {', '.join(known)}"
    *first, last = map(repr, close)
    return f"did you mean {', '.join(first)} or {last}?" if first else f"did you mean {last}?"


def bind(call: Call, function: Callable[..., Any]) -> Call:
    """Returns a call with a name for every argument, except those of `chain(*args)`.

    Raises:
        UserError: the function has no such argument; the message has the position and the nearest names.

    >>> print(bind(parse("clip(1.0)").calls[0], transformations()["clip"]))
    clip(max_delta=1.0)
    """
    parameters = list(inspect.signature(function).parameters.values())
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return call
    names = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    bound: list[Argument] = []
    for number, argument in enumerate(call.arguments):
        if argument.name is None and number >= len(names):
            raise UserError(f"character {argument.position}: {call.name} takes {len(names)} arguments; remove this one")
        name = names[number] if argument.name is None else argument.name
        if name not in names:
            hint = near(name, names) if names else "it takes none"
            raise UserError(f"character {argument.position}: {call.name} has no argument {name!r}; {hint}")
        if name in [each.name for each in bound]:
            raise UserError(f"character {argument.position}: argument {name!r} of {call.name} is repeated")
        bound.append(Argument(name, argument.value, argument.position))
    return Call(call.name, tuple(bound), call.position)


def check(text: str) -> None:
    """Checks the names of functions and arguments in an expression; imports none of the user's own code.

    Raises:
        UserError: the expression is invalid; one line that names the position, the value and the fix.

    >>> check("adamw(b3=0.9)")
    Traceback (most recent call last):
    mass_jax.errors.UserError: character 7: adamw has no argument 'b3'; did you mean 'b2' or 'b1'?
    """
    chain = parse(text)
    if text in (*COMMON, CUSTOM):
        return
    for call in calls(chain):
        if not call.is_path and call.name not in DTYPES:
            bind(call, function_of(call))


def depends_on(text: str, name: str) -> bool:
    """Returns whether an optimizer takes --inner_lr ("learning_rate") or --inner_eps_root ("eps_root").

    It does if one of its functions has such an argument that the expression does not give, or gives as `auto`. The
    user's own functions are imported to read their arguments.

    >>> depends_on("adam(0.1)", "learning_rate"), depends_on("adam(0.1)", "eps_root"), depends_on("sgd", "eps_root")
    (False, True, False)
    """
    return text != CUSTOM and any(_lacks(call, name) for call in calls(parse(text)))


def measures(text: str) -> bool:
    """Returns whether an expression has an argument `auto`.

    >>> measures("adam(eps_root=auto)"), measures("adam")
    (True, False)
    """
    return "auto" in text and any(each.value is AUTO for call in calls(parse(text)) for each in call.arguments)


def numbers(text: str, name: str) -> list[float]:
    """Returns the numbers that an expression gives for an argument.

    >>> numbers("clip(1.0) | adam(0.1, eps_root=1e-8)", "eps_root")
    [1e-08]
    """
    if text == CUSTOM:
        return []
    arguments = [each for call in calls(parse(text)) for each in _bound(call).arguments]
    return [float(each.value) for each in arguments if each.name == name and isinstance(each.value, int | float)]


def with_numbers(text: str, name: str, change: Callable[[float], float | None]) -> str:
    """Returns an expression with other numbers for an argument.

    Args:
        text: the expression.
        name: name of the argument.
        change: returns the number that takes the place of another, or None to leave the argument out.

    >>> with_numbers("clip(1.0) | adam(eps_root=1e-8)", "eps_root", lambda _: None)
    'clip(max_delta=1.0) | adam'
    """

    def changed(call: Call) -> Call:
        arguments = []
        for each in _bound(call).arguments:
            if each.name == name and isinstance(each.value, int | float):
                value = change(each.value)
                arguments += [] if value is None else [dataclasses.replace(each, value=value)]
            else:
                arguments.append(each)
        return dataclasses.replace(call, arguments=tuple(arguments))

    return str(map_calls(changed, parse(text)))


def _bound(call: Call) -> Call:
    """Returns a call with names for its arguments; those of data types and constants stay unchanged."""
    if call.name in DTYPES or not call.arguments:
        return call
    function = own_function.load(call.name) if call.is_path else function_of(call)
    return bind(call, function) if callable(function) else call


def _lacks(call: Call, name: str) -> bool:
    """Returns whether a call has a parameter that is not given, or given as auto."""
    if call.name in DTYPES:
        return False
    function = own_function.load(call.name) if call.is_path else function_of(call)
    if not callable(function) or name not in parameters_of(function):
        return False
    value = {each.name: each.value for each in bind(call, function).arguments}.get(name, AUTO)
    return value is AUTO


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a function by name; none if they are unknown, as for some builtins."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
