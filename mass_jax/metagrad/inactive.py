"""Derivatives of optimizer updates whose inactive branch is NaN or infinite, for example clipping by a zero norm.

`clip_by_global_norm` computes `select(norm < limit, g, g / norm * limit)`. At a zero gradient the first branch is
active, yet automatic differentiation also visits the second and multiplies its zero cotangent by an infinite slope,
which is NaN. The fix: in arithmetic that involves a norm, a cotangent of exactly zero stays zero.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from mass_jax.metagrad import trees

_ROOTS = frozenset({"sqrt", "rsqrt", "pow"})
_SUMS = frozenset({"reduce_sum", "dot_general"})
_PRODUCTS = frozenset({"mul", "div"})
# Operations that keep a sum of squares a sum of squares.
_KEEP_SUM = frozenset(
    "add mul div max convert_element_type reshape squeeze broadcast_in_dim copy real abs select_n".split()
)
_INLINED = frozenset({"jit", "pjit", "closed_call"})
_PLAIN, _SUM, _NORM = 0, 1, 2


def differentiate_active_branch(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function so that its reverse-mode derivative is that of the active branch where a norm is zero.

    Values do not change. The wrapper affects roots of sums (norms of trees, leaves, or rows), scalar roots (of a step
    count), and products and quotients with them. Elementwise roots, such as Adam's, keep the derivative of JAX, and a
    function without such roots is evaluated unchanged. Forward mode is not supported.

    Args:
        function: function of trees of arrays.

    Returns:
        A function with the same arguments and values.

    >>> import jax, jax.numpy as jnp, optax
    >>> clip = lambda g: optax.clip_by_global_norm(1.0).update(g, optax.EmptyState())[0]
    >>> jax.grad(lambda g: clip(g).sum())(jnp.zeros(2)).tolist()
    [nan, nan]
    >>> jax.grad(lambda g: differentiate_active_branch(clip)(g).sum())(jnp.zeros(2)).tolist()
    [1.0, 1.0]
    """

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        leaves = jax.tree.leaves(args)
        if _has_norm(closed.jaxpr):
            results = [value for value, _ in _evaluate(closed.jaxpr, [(x, _PLAIN) for x in (*closed.consts, *leaves)])]
        else:  # not the function itself, which would be traced a second time
            results = jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *leaves)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return wrapped


def _has_norm(jaxpr: Any) -> bool:
    """Returns True if a root of a sum, or a scalar root, may occur."""
    equations = list(_equations(jaxpr))
    sums = any(each.primitive.name in _SUMS for each in equations)
    return any(each.primitive.name in _ROOTS and (sums or _is_scalar_root(each)) for each in equations)


def _equations(jaxpr: Any) -> Any:
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from _equations(inner)


def _is_scalar_root(equation: Any) -> bool:
    return equation.primitive.name in ("sqrt", "rsqrt") and equation.outvars[0].aval.shape == ()


def _evaluate(jaxpr: Any, inputs: Sequence[tuple[Any, int]]) -> list[tuple[Any, int]]:
    """Evaluates a jaxpr with its constants first in `inputs`; each value is paired with its kind."""
    found: dict[Any, tuple[Any, int]] = dict(zip((*jaxpr.constvars, *jaxpr.invars), inputs, strict=True))

    def read(atom: Any) -> tuple[Any, int]:
        return (atom.val, _PLAIN) if isinstance(atom, core.Literal) else found[atom]

    for equation in jaxpr.eqns:
        results = _equation(equation, [read(atom) for atom in equation.invars], jaxpr.debug_info)
        found.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(equation: Any, inputs: list[tuple[Any, int]], debug_info: Any) -> list[tuple[Any, int]]:
    name, params = equation.primitive.name, equation.params
    if name in _INLINED:
        inner = params["call_jaxpr" if name == "closed_call" else "jaxpr"]
        return _evaluate(inner.jaxpr, [*((const, _PLAIN) for const in inner.consts), *inputs])
    if name == "cond":
        return _conditional(params["branches"], inputs)
    kinds = [kind for _, kind in inputs]
    norm = _NORM in kinds
    root = name in _ROOTS and kinds[0] == _SUM
    if root or (norm and name in (*_PRODUCTS, *_ROOTS)):
        value = _zero_preserving(equation)(*(value for value, _ in inputs))
        return [(value, _NORM)]
    if norm or _is_scalar_root(equation):
        kind = _NORM
    else:
        kind = _SUM if name in _SUMS or (name in _KEEP_SUM and _SUM in kinds) else _PLAIN
    return [(value, kind) for value in _bind(equation, [value for value, _ in inputs], debug_info)]


def _bind(equation: Any, inputs: Sequence[Any], debug_info: Any) -> list[Any]:
    """Evaluates one equation unchanged."""
    given = {atom: value for atom, value in zip(equation.invars, inputs, strict=True) if isinstance(atom, core.Var)}
    names = debug_info.with_unknown_names()
    alone = core.Jaxpr((), list(given), equation.outvars, [equation], equation.effects, names)
    return jax.core.eval_jaxpr(alone, (), *given.values())


def _conditional(branches: Sequence[Any], inputs: list[tuple[Any, int]]) -> list[tuple[Any, int]]:
    """Evaluates `lax.cond` or `lax.switch`; outputs count as norms, since a branch may have computed one."""
    (index, _), *operands = inputs
    kinds = [kind for _, kind in operands]

    def branch(closed: Any) -> Callable[..., list[Any]]:
        def run(*values: Any) -> list[Any]:
            marked = [*((const, _PLAIN) for const in closed.consts), *zip(values, kinds, strict=True)]
            return [value for value, _ in _evaluate(closed.jaxpr, marked)]

        return run

    # The index of a jaxpr's cond is always in range.
    values = jax.lax.switch(index, [branch(each) for each in branches], *(value for value, _ in operands))
    return [(value, _NORM) for value in values]


def _zero_preserving(equation: Any) -> Callable[..., Any]:
    """Wraps an elementwise operation so that its derivative maps a zero cotangent to zero."""
    shape = equation.outvars[0].aval.shape

    def plain(*operands: Any) -> Any:
        return equation.primitive.bind(*operands, **equation.params)

    @jax.custom_vjp
    def operation(*operands: Any) -> Any:
        return plain(*operands)

    def backward(operands: Any, bar: Any) -> Any:
        def keep_zero(operand: Any, cotangent: Any) -> Any:
            if not trees.is_differentiable(operand):
                return cotangent
            return jnp.where(bar == 0, jnp.zeros_like(cotangent), cotangent)

        _, pull = jax.vjp(plain, *operands)
        return tuple(map(keep_zero, operands, pull(bar)))

    operation.defvjp(lambda *operands: (plain(*operands), operands), backward)
    # Scalar operands are broadcast first, so that cotangents are masked before they are summed.
    return lambda *operands: operation(*(jnp.broadcast_to(operand, shape) for operand in operands))
