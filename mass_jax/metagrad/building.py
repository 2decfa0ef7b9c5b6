"""Builds optimizers from expressions, such as `clip_by_global_norm(1.0) | adam(b1=0.8, eps_root=auto)`.

`mass_jax.expression` has the grammar and `mass_jax.optax_functions` the names.
"""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import optax

from mass_jax import own_function
from mass_jax.errors import UserError
from mass_jax.expression import AUTO, CUSTOM, Argument, Call, Chain, calls, map_calls, parse
from mass_jax.metagrad.optimizers import SUPPORT
from mass_jax.metagrad.transformations import as_transformation
from mass_jax.optax_functions import ALIASES, DTYPES, EPS_ROOT, RATE, bind, function_of, parameters_of

_FACTORS = {"scale": ("step_size",), "scale_by_schedule": ("step_size_fn",)}  # elsewhere it is the learning rate


@dataclasses.dataclass(frozen=True)
class _Missing:
    """Values for arguments that an expression does not give."""

    rate: Any
    eps_root: Any
    differentiable: bool


def parse_optimizer(
    text: str, learning_rate: Any, eps_root: Any = 1e-8, *, differentiable: bool = True
) -> optax.GradientTransformation:
    """Builds an optimizer from an expression; nothing in it is evaluated as Python.

    Args:
        text: name of an optax optimizer or transformation, with arguments, nested schedules, and parts of a chain
            separated by vertical bars; or `module:function` or `file.py:function`, which is imported and called.
        learning_rate: value of each argument `learning_rate` that is not given.
        eps_root: value of each argument `eps_root` that is not given, or given as `auto`.
        differentiable: whether the optimizer must support meta-gradients. If so, the settings of `SUPPORT` apply as in
            `make_optimizer`; otherwise only `learning_rate` is filled in.

    Returns:
        The optimizer.

    Raises:
        UserError: the expression is invalid, or names an optimizer without a usable meta-gradient; one line with the
            position, the value and the fix.

    >>> import jax.numpy as jnp
    >>> optimizer = parse_optimizer("clip(0.5) | sgd", 0.1)
    >>> optimizer.update(jnp.float32(2.0), optimizer.init(jnp.float32(0.0)))[0].tolist()
    -0.05000000074505806
    """
    return build(resolve(text, learning_rate, eps_root, differentiable=differentiable))


def resolve(text: str, learning_rate: Any, eps_root: Any = AUTO, *, differentiable: bool = True) -> Chain:
    """Returns an expression with names for all arguments, and with those that `parse_optimizer` fills in.

    Raises:
        UserError: as for `parse_optimizer`.

    >>> print(resolve("clip(1.0) | adam(b1=0.8)", 0.03))
    clip(max_delta=1.0) | adam(learning_rate=0.03, b1=0.8, eps_root=auto)
    """
    if text == CUSTOM:
        raise UserError(f"{CUSTOM!r} stands for an optimizer from Python; pass inner_optimizer= again, or name another")
    missing = _Missing(learning_rate, eps_root, differentiable)
    return map_calls(lambda call: _resolved(call, missing), parse(text))


def _resolved(call: Call, missing: _Missing) -> Call:
    """Returns a call with its arguments completed."""
    if call.name in DTYPES and not call.arguments:
        return call
    function = own_function.load(call.name) if call.is_path else function_of(call)
    if not callable(function):
        if call.arguments:
            raise UserError(f"character {call.position}: {call.name} is not a function; remove the arguments")
        return call
    name, defaults = ALIASES.get(call.name, (call.name, {}))
    parameters = parameters_of(function)
    bound = bind(dataclasses.replace(call, name=name), function)
    added: dict[str, Any] = {**defaults, **(_settings(call) if missing.differentiable else {})}
    if RATE in parameters:
        added[RATE] = missing.rate
    if EPS_ROOT in parameters and missing.differentiable:
        added[EPS_ROOT] = missing.eps_root
    given = {argument.name for argument in bound.arguments}
    arguments = [
        *(_measured(argument, missing) for argument in bound.arguments),
        *(Argument(key, value) for key, value in added.items() if key not in given),
    ]
    order = {parameter: number for number, parameter in enumerate(parameters)}
    arguments.sort(key=lambda argument: order.get(argument.name or "", 0))  # stable
    _check_complete(call, parameters, arguments)
    return Call(name, tuple(arguments), call.position)


def _settings(call: Call) -> Mapping[str, Any]:
    """Returns the settings of `SUPPORT`; raises a UserError if it rejects the optimizer."""
    if call.name not in SUPPORT:
        return {}
    support = SUPPORT[call.name]
    if not support.exact:
        raise UserError(
            f"character {call.position}: {call.name!r} is rejected: {support.reason}; use 'sgd', 'adagrad', or 'adamw'"
        )
    return support.settings


def _measured(argument: Argument, missing: _Missing) -> Argument:
    """Replaces the value `auto` of eps_root."""
    if argument.value is not AUTO:
        return argument
    if argument.name != EPS_ROOT or not missing.differentiable:
        where = "eps_root of an inner optimizer"
        raise UserError(f"character {argument.position}: auto is a value of {where} only; give a number")
    return dataclasses.replace(argument, value=missing.eps_root)


def _check_complete(call: Call, parameters: Mapping[str, inspect.Parameter], arguments: Sequence[Argument]) -> None:
    """Raises a UserError if an argument without default is missing."""
    given = {argument.name for argument in arguments}
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    lacking = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind not in variable and name not in given
    ]
    if lacking and None not in given:
        example = ", ".join(f"{name}=..." for name in lacking)
        raise UserError(
            f"character {call.position}: {call.name} needs {', '.join(lacking)}; write {call.name}({example})"
        )


def build(chain: Chain) -> optax.GradientTransformation:
    """Builds the optimizer of an expression that `resolve` completed."""
    parts = [_transformation(call, _value(call)) for call in chain.calls]
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


def _transformation(call: Call, value: Any) -> optax.GradientTransformation:
    """Returns a built value; raises a UserError if it is not an optimizer."""
    try:
        transformation = as_transformation(value)
    except UserError:
        transformation = None
    if transformation is None:
        kind = type(value).__name__
        raise UserError(
            f"character {call.position}: {call.name} returns a {kind}, not an optimizer; use one of optax, and give "
            f"schedules as its learning rate, as in sgd(cosine_decay_schedule(0.2, 4))"
        )
    return transformation


def _value(call: Call) -> Any:
    """Calls the function of a completed call."""
    if call.name in DTYPES:
        return call.name
    function = own_function.load(call.name) if call.is_path else function_of(call)
    if not callable(function):
        return function
    positional = [_argument(each.value) for each in call.arguments if each.name is None]
    named = {each.name: _argument(each.value) for each in call.arguments if each.name is not None}
    try:
        return function(*positional, **named)
    except UserError:
        raise
    except Exception as error:  # optax has no common error, and the user's own function may raise anything
        raise UserError(f"character {call.position}: {call.name} failed: {own_function.describe(error)}") from error


def _argument(value: Any) -> Any:
    """Builds the nested expressions of an argument."""
    if not isinstance(value, Chain):
        return value
    return _value(value.calls[0]) if len(value.calls) == 1 else build(value)


def rates_at(chain: Chain, step: int) -> list[float]:
    """Returns the factors by which an expression that `resolve` completed scales the update of a step.

    They are the learning rates, the values of schedules among them, and the factors of `scale` and
    `scale_by_schedule`, without their signs.

    Args:
        chain: the expression.
        step: number of the step, from 0.

    >>> rates_at(resolve("sgd(linear_schedule(0.4, 0.0, 4)) | scale(0.5)", 0.1), 1)
    [0.3..., 0.5]
    """
    found = []
    for call in calls(chain):
        for argument in call.arguments:
            if argument.name in _FACTORS.get(call.name, (RATE,)):
                value = _argument(argument.value)
                found.append(abs(float(value(step) if callable(value) else value)))
    return found
