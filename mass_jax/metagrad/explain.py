"""Finds what keeps a loss from forward mode, which every lean adjoint needs."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
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
    """Tries what the table of rules cannot tell: rules that exist only to raise."""

    def forward(*args: Any) -> Any:
        return jax.linearize(loss, *args)[0]

    try:
        jax.eval_shape(forward, *args)
    except Exception as error:
        return [Blocker("forward mode", _name(loss), str(error).splitlines()[0])]
    return []
