"""Replacements for `jax.grad` whose own reverse-mode derivative is forward-over-reverse."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from mass_jax.errors import UserError
from mass_jax.metagrad import reverse_only, trees


def mixed_grad(
    loss: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    r"""Drop-in replacement for `jax.grad` inside a loop that is itself differentiated in reverse mode.

    Reverse mode through :math:`g = \nabla_x L(x, y)` differentiates the backward pass in reverse. The Hessian is
    symmetric, so for a cotangent :math:`v` of :math:`g`, one JVP of the joint gradient gives the same result:

    .. math:: (\bar x, \bar y) = \frac{d}{d\epsilon} \nabla_{(x, y)} L(x + \epsilon v, y) \Big|_{\epsilon=0}

    All floating-point arrays that the loss depends on get a cotangent, including those it closes over; arrays that are
    not being differentiated cost nothing. Higher reverse-mode derivatives work; forward mode raises an error.

    Args:
        loss: function that returns a scalar, or `(scalar, aux)` with `has_aux`. It must support `jax.jvp`; check with
            `explain_forward_mode`. Python scalars and other objects among its arguments are passed through unchanged.
        argnums: positional arguments to differentiate with respect to, as for `jax.grad`.
        has_aux: whether the loss returns `(scalar, aux)`.

    Returns:
        A function with the arguments of `loss` that returns gradients, or `(gradients, aux)` with `has_aux`.

    Raises:
        ArgumentError: `argnums` is invalid or repeats a position; raised here or when the returned function is called.

    Source: Kemaev et al. 2025 (MixFlow-MG, arXiv:2505.00793), section 3.

    >>> import jax, jax.numpy as jnp
    >>> loss = lambda x, y: jnp.sum(y * x**3)
    >>> jax.grad(lambda y: mixed_grad(loss)(jnp.float32(2.0), y))(jnp.float32(1.0)).tolist()
    12.0
    """
    value_and_grad = mixed_value_and_grad(loss, argnums, has_aux)

    @functools.wraps(loss)
    def grad(*args: Any, **kwargs: Any) -> Any:
        value, grads = value_and_grad(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return grad


def mixed_value_and_grad(
    loss: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """Drop-in replacement for `jax.value_and_grad` with a forward-over-reverse derivative; see `mixed_grad`.

    Args:
        loss: as for `mixed_grad`.
        argnums: as for `mixed_grad`.
        has_aux: as for `mixed_grad`.

    Returns:
        A function that returns `(value, gradients)`, or `((value, aux), gradients)` with `has_aux`.

    >>> import jax, jax.numpy as jnp
    >>> slope = lambda x: mixed_value_and_grad(lambda x, y: y * x**3)(x, jnp.float32(2.0))[1]
    >>> jax.grad(slope)(jnp.float32(1.0)).tolist()
    12.0
    """
    numbers = _numbers(argnums)

    @functools.wraps(loss)
    def value_and_grad(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        chosen = _positions(numbers, len(args))
        traced = _trace(loss, chosen, has_aux, args, kwargs)
        outputs, grads = _operation(traced)(*map(reverse_only.refuse_forward_mode, traced.inputs))
        gradients = jax.tree.unflatten(jax.tree.structure(tuple(args[number] for number in chosen)), grads)
        value = (outputs[0], jax.tree.unflatten(traced.aux_tree, outputs[1:])) if has_aux else outputs[0]
        return value, gradients if isinstance(argnums, Sequence) else gradients[0]

    return value_and_grad


class ArgumentError(UserError, TypeError):
    """Error for an invalid argument of `mixed_grad`; also a TypeError, which `jax.grad` raises."""


def _numbers(argnums: Any) -> tuple[int, ...]:
    """Converts `argnums` to a tuple; raises an ArgumentError for other types and repetitions."""
    try:
        numbers = tuple(map(operator.index, argnums if isinstance(argnums, Sequence) else (argnums,)))
    except TypeError:
        raise ArgumentError(f"argnums={argnums!r} must be an int or a tuple of ints") from None
    if not numbers:
        raise ArgumentError("argnums=() selects no argument; give at least one position")
    if len(set(numbers)) < len(numbers):
        raise ArgumentError(f"argnums={argnums!r} repeats a position; name each argument once")
    return numbers


def _positions(numbers: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Converts positions to nonnegative ones for a call with `count` positional arguments."""
    for number in numbers:
        if not -count <= number < count:
            raise ArgumentError(f"argnums={number} is out of range for a call with {count} positional arguments")
    chosen = tuple(number % count for number in numbers)
    if len(set(chosen)) < len(chosen):
        raise ArgumentError(f"argnums={numbers} names one of {count} arguments twice; name each argument once")
    return chosen


class _Traced(NamedTuple):
    """A loss as a function of a flat list of arrays, including those that it closes over."""

    function: Callable[..., list[Any]]  # inputs -> [value, *aux leaves]
    inputs: list[Any]
    targets: tuple[int, ...]  # positions in inputs of the leaves to differentiate
    aux_tree: Any


def _trace(loss: Callable[..., Any], numbers: tuple[int, ...], has_aux: bool, args: Any, kwargs: Any) -> _Traced:
    """Converts captured arrays to inputs, so that no derivative rule closes over a tracer."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    spans: Any = np.cumsum([0, *(len(jax.tree.leaves(arg)) for arg in args)])
    wanted = [index for number in numbers for index in range(spans[number], spans[number + 1])]
    is_array = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    dynamic = [index for index in range(len(leaves)) if index in wanted or is_array[index]]

    def flat(*arrays: Any) -> tuple[Any, Any]:
        full = _replace(leaves, dynamic, arrays)
        args, kwargs = jax.tree.unflatten(structure, full)
        out = loss(*args, **kwargs)
        if has_aux and not (isinstance(out, tuple | list) and len(out) == 2):
            raise ArgumentError(f"has_aux=True needs a loss that returns (scalar, aux), not {type(out).__name__}")
        return out if has_aux else (out, None)

    arrays = [leaves[index] for index in dynamic]
    closed, shape = jax.make_jaxpr(flat, return_shape=True)(*arrays)
    offset = len(closed.consts)

    def function(*inputs: Any) -> list[Any]:
        return jax.core.eval_jaxpr(closed.jaxpr, inputs[:offset], *inputs[offset:])

    targets = tuple(offset + dynamic.index(index) for index in wanted)
    return _Traced(function, [*closed.consts, *arrays], targets, jax.tree.structure(shape[1]))


def _operation(traced: _Traced) -> Callable[..., tuple[list[Any], list[Any]]]:
    """Builds the operation inputs -> (outputs, gradients) with its custom derivative."""

    @jax.custom_vjp
    def operation(*inputs: Any) -> tuple[list[Any], list[Any]]:
        def split_value(targets: Sequence[Any]) -> tuple[Any, list[Any]]:
            value, *aux = traced.function(*_replace(inputs, traced.targets, targets))
            return value, aux

        chosen = [inputs[index] for index in traced.targets]
        (value, aux), grads = jax.value_and_grad(split_value, has_aux=True)(chosen)
        return [value, *aux], grads

    def forward(*primals: Any) -> tuple[Any, Any]:
        inputs = [primal.value for primal in primals]
        active = [primal.perturbed and trees.is_differentiable(primal.value) for primal in primals]
        residuals = (
            [x if a else None for x, a in zip(inputs, active, strict=True)],
            [None if a else x for x, a in zip(inputs, active, strict=True)],
        )
        return operation(*inputs), residuals

    def backward(residuals: Any, cotangents: Any) -> tuple[Any, ...]:
        active = [index for index, leaf in enumerate(residuals[0]) if leaf is not None]
        inputs = [b if a is None else a for a, b in zip(*residuals, strict=True)]
        found = _pull(traced, inputs, active, *cotangents)
        return tuple(_replace([None] * len(inputs), active, found))

    operation.defvjp(forward, backward, symbolic_zeros=True)
    return operation


def _pull(traced: _Traced, inputs: list[Any], active: list[int], outputs_bar: list[Any], grads_bar: list[Any]) -> Any:
    """Computes cotangents of the active inputs: one VJP for the outputs, one JVP for the gradients."""

    def joint(targets: Sequence[Any], seeds: list[Any]) -> Any:
        at = _replace(inputs, traced.targets, targets)
        outputs, pull = jax.vjp(lambda values: traced.function(*_replace(at, active, values)), [at[i] for i in active])
        return pull([_instantiate(seed, out) for seed, out in zip(seeds, outputs, strict=True)])[0]

    chosen = [inputs[index] for index in traced.targets]
    total = None
    if not all(isinstance(bar, SymbolicZero) for bar in grads_bar):
        direction = [_instantiate(bar, leaf) for bar, leaf in zip(grads_bar, chosen, strict=True)]
        unit = [1, *([None] * (len(outputs_bar) - 1))]
        total = jax.jvp(lambda targets: joint(targets, unit), (chosen,), (direction,))[1]
    if not all(isinstance(bar, SymbolicZero) for bar in outputs_bar):
        direct = joint(chosen, outputs_bar)
        total = direct if total is None else trees.add(total, direct)
    return [None] * len(active) if total is None else total


def _instantiate(bar: Any, like: Any) -> Any:
    """Converts a cotangent to an array: None and symbolic zeros become zeros (float0 for integers), 1 ones."""
    if not trees.is_differentiable(like):
        return np.zeros(jnp.shape(like), jax.dtypes.float0)
    if bar is None or isinstance(bar, SymbolicZero):
        return jnp.zeros_like(like)
    return jnp.ones_like(like) if isinstance(bar, int) else bar


def _replace(values: Sequence[Any], positions: Sequence[int], new: Sequence[Any]) -> list[Any]:
    replaced: list[Any] = list(values)
    for position, value in zip(positions, new, strict=True):
        replaced[position] = value
    return replaced
