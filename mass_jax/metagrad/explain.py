"""Finds operations in a loss that do not support forward mode, which every adjoint but `ReverseUnroll` needs."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad

from mass_jax.errors import first_line

_INSTEAD = {
    "pallas_call": "use plain JAX in the inner loss, such as jax.nn.dot_product_attention(implementation='xla')",
    "pure_callback": "write the computation in JAX, or move it out of the differentiated function",
    "io_callback": "move side effects out of the inner loss",
    "custom_vjp_call": "write it in plain JAX, or use jax.custom_jvp, from which JAX derives reverse mode",
}
_DEFAULT = "define a JVP rule for the primitive, or use primitives that have one"


@dataclasses.dataclass(frozen=True)
class Blocker:
    """An operation that blocks forward mode.

    Attributes:
        primitive: name of the JAX primitive.
        function: name of the function that contains it.
        instead: suggested replacement.
    """

    primitive: str
    function: str
    instead: str

    def __str__(self) -> str:
        return f"{self.primitive} of {self.function} does not support forward mode: {self.instead}"


def explain_forward_mode(loss: Callable[..., Any], *args: Any) -> list[Blocker]:
    """Names the primitives and `custom_vjp` functions in a loss, or in its gradient, that block `jax.jvp`.

    Some blockers show only when the derivative is traced, such as a `custom_jvp` rule that calls a `custom_vjp`
    function, or a loop of unknown length, which has no gradient. The reason is then JAX's own message.

    Args:
        loss: function of `args` that returns a scalar, or anything if only its own forward mode matters.
        *args: arrays or `jax.ShapeDtypeStruct`s; nothing is computed.

    Returns:
        Blockers, each of which prints a suggested replacement; empty if `jax.jvp(jax.grad(loss), ...)` can be traced.

    >>> @jax.custom_vjp
    ... def fused(x): return x * x
    >>> fused.defvjp(lambda x: (x * x, x), lambda x, bar: (2 * x * bar,))
    >>> print(explain_forward_mode(lambda x: fused(x), jax.ShapeDtypeStruct((), "float32"))[0])
    custom_vjp_call of fused does not support forward mode: write it in plain JAX, or use jax.custom_jvp, from ...
    """
    closed, shapes = jax.make_jaxpr(loss, return_shape=True)(*args)
    found = list(dict.fromkeys(_blockers(closed.jaxpr, _name(loss))))
    return found or _attempt(loss, args, shapes)


def _blockers(jaxpr: Any, inside: str) -> Iterator[Blocker]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        function = _called(equation) or inside
        if name.startswith("custom_vjp_call"):
            yield Blocker("custom_vjp_call", function, _INSTEAD["custom_vjp_call"])
        elif (equation.primitive not in ad.primitive_jvps and not _is_call(equation)) or name in _INSTEAD:
            yield Blocker(name, function, _INSTEAD.get(name, _DEFAULT))
        else:
            for inner in core.jaxprs_in_params(equation.params):
                yield from _blockers(inner, function)


def _is_call(equation: Any) -> bool:
    """Returns True for calls, which have trace rules of their own instead of a JVP rule."""
    return bool(list(core.jaxprs_in_params(equation.params)))


def _called(equation: Any) -> str | None:
    if "name" in equation.params and isinstance(equation.params["name"], str):
        return equation.params["name"]
    for inner in core.jaxprs_in_params(equation.params):
        return str(inner.debug_info.func_name)
    return None


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))


def _attempt(loss: Callable[..., Any], args: Any, shapes: Any) -> list[Blocker]:
    """Traces forward-over-reverse for a scalar loss, and forward mode for anything else."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda *args: args, *args))
    moving = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    scalar = isinstance(shapes, jax.ShapeDtypeStruct) and not shapes.shape and bool(moving)

    def derivative(leaves: Any) -> Any:
        def of_moving(values: Any) -> Any:
            return loss(*jax.tree.unflatten(structure, [values.get(i, leaf) for i, leaf in enumerate(leaves)]))

        values = {i: leaves[i] for i in moving}
        return jax.jvp(jax.grad(of_moving) if scalar else of_moving, (values,), (values,))

    try:
        closed = jax.make_jaxpr(derivative)(leaves)
    except Exception as error:
        return [Blocker("the gradient" if scalar else "the whole", _name(loss), first_line(error))]
    # This tangent waits for the backward pass of a custom_vjp function, which forward mode never runs.
    waits = any(equation.primitive.name == "custom_lin" for equation in _equations(closed.jaxpr))
    return [Blocker("custom_vjp_call", _name(loss), _INSTEAD["custom_vjp_call"])] if waits else []


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from _equations(inner)
