"""Finds what keeps a loss from forward mode, which every lean adjoint needs."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad

_INSTEAD = {
    "pallas_call": "use plain JAX in the inner loss, such as jax.nn.dot_product_attention(implementation='xla')",
    "pure_callback": "write the computation in JAX, or keep it out of what is differentiated",
    "io_callback": "keep side effects out of the inner loss",
    "custom_vjp_call": "write it in plain JAX, or give it jax.custom_jvp, whose reverse mode JAX derives",
}
_DEFAULT = "give the primitive a jvp rule, or express it by primitives that have one"


@dataclasses.dataclass(frozen=True)
class Blocker:
    """One operation that blocks forward mode: its primitive, the function it came from, and what to use instead."""

    primitive: str
    function: str
    instead: str

    def __str__(self) -> str:
        return f"{self.primitive} of {self.function} has no forward mode: {self.instead}"


def explain_forward_mode(loss: Callable[..., Any], *args: Any) -> list[Blocker]:
    """Names the primitives and `custom_vjp` functions in a loss, or in its gradient, that block `jax.jvp`.

    What the table of rules does not show (a `custom_jvp` whose rule calls a `custom_vjp` function, a loop of unknown
    length, which has no gradient) is found by tracing that derivative; then JAX's own message is the reason.

    Args:
        loss: function of `args` that returns a scalar (or anything, if only its forward mode matters).
        *args: arrays or `jax.ShapeDtypeStruct`s; nothing is computed.

    Returns:
        Blockers, empty when `jax.jvp(jax.grad(loss), ...)` will trace. Printing one says what to use instead.

    >>> @jax.custom_vjp
    ... def fused(x): return x * x
    >>> fused.defvjp(lambda x: (x * x, x), lambda x, bar: (2 * x * bar,))
    >>> print(explain_forward_mode(lambda x: fused(x), jax.ShapeDtypeStruct((), "float32"))[0])
    custom_vjp_call of fused has no forward mode: write it in plain JAX, or give it jax.custom_jvp, whose ...
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
    """Calls are differentiated by their own trace rules, not through the table of primitives."""
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
    """Traces what is wanted: forward over reverse of a scalar loss, forward mode of anything else."""
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
        return [Blocker("the gradient" if scalar else "the whole", _name(loss), str(error).splitlines()[0])]
    # A tangent that waits for a custom_vjp function's backward pass; there is none in forward mode.
    waits = any(equation.primitive.name == "custom_lin" for equation in _equations(closed.jaxpr))
    return [Blocker("custom_vjp_call", _name(loss), _INSTEAD["custom_vjp_call"])] if waits else []


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from _equations(inner)
