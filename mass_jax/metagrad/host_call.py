"""Calls of Python functions from compiled programs, with NumPy arrays on both sides.

`jax.pure_callback` hands over JAX arrays instead, which costs two more copies and can deadlock the CPU runtime on large
arrays (jax-ml/jax issue 24255).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from mass_jax.errors import UserError


def call(function: Callable[..., Sequence[np.ndarray]], results: Sequence[jax.ShapeDtypeStruct], *args: Any) -> Any:
    """Calls a function on the host each time that the compiled program gets here.

    Under `jax.vmap`, all arguments and results have a leading axis; the function is called once for all of them. Calls
    without a data dependence run in any order, and those whose results are not used are left out.

    Args:
        function: takes and returns NumPy arrays; hashable, so that equal functions share compiled programs.
        results: shapes and dtypes of its results.
        *args: its arguments, arrays without PRNG keys.

    Returns:
        The list of results.

    Raises:
        UserError: the program runs on more than one device.

    >>> def double(x): return (2 * x,)
    >>> jax.jit(lambda x: call(double, [jax.ShapeDtypeStruct((), jnp.float32)], x))(jnp.float32(3.0))[0].tolist()
    6.0
    """
    return _call.bind(*args, function=function, results=tuple((each.shape, each.dtype) for each in results))


_call = Primitive("host_call")
_call.multiple_results = True


def _eager(*args: Any, function: Callable[..., Any], results: Any) -> list[jax.Array]:
    """Calls the function outside of a compiled program."""
    del results
    return [jnp.asarray(each) for each in function(*map(np.asarray, args))]


def _abstract(*args: Any, function: Callable[..., Any], results: Any) -> list[Any]:
    del args, function
    return [jax.core.ShapedArray(shape, dtype) for shape, dtype in results]


def _batch(args: Any, axes: Any, *, function: Callable[..., Any], results: Any) -> tuple[Any, Any]:
    """Gives every argument and result a leading axis."""
    (size,) = {arg.shape[axis] for arg, axis in zip(args, axes, strict=True) if axis is not None}
    whole = [
        jnp.broadcast_to(arg, (size, *arg.shape)) if axis is None else jnp.moveaxis(arg, axis, 0)
        for arg, axis in zip(args, axes, strict=True)
    ]
    wide = tuple(((size, *shape), dtype) for shape, dtype in results)
    return _call.bind(*whole, function=function, results=wide), [0] * len(results)


def _lower(ctx: Any, *args: Any, function: Callable[..., Any], results: Any) -> Any:
    """Emits the call; it has a side effect, so the compiler neither moves it out of a loop nor merges equal calls."""
    del results
    devices = getattr(ctx.module_context.axis_context, "num_devices", 1)
    if devices and devices > 1:
        raise UserError(
            f"the trajectory of the inner loop cannot leave a mesh of {devices} devices; use one device, or "
            "--adjoint_store=device"
        )
    values, _, _ = mlir.emit_python_callback(
        ctx, function, None, list(args), ctx.avals_in, ctx.avals_out, has_side_effect=True, returns_token=False
    )
    return values


_call.def_impl(_eager)
_call.def_abstract_eval(_abstract)
batching.primitive_batchers[_call] = _batch
mlir.register_lowering(_call, _lower, cacheable=False)
