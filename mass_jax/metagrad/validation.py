"""Validates the arguments of `meta_gradient` and `adapt`; each error is one line that names the fix."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval as pe

from mass_jax.errors import UserError
from mass_jax.metagrad import trees
from mass_jax.metagrad.trees import PyTree


def parameters(params: PyTree) -> PyTree:
    """Converts the initial parameters to arrays.

    Raises:
        UserError: there are no leaves, or a leaf is not real floating-point.

    >>> parameters({"w": 1})
    Traceback (most recent call last):
    mass_jax.errors.UserError: params['w'] is int32, which has no gradient; give floating-point parameters
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise UserError(f"params={params!r} has no leaves; give the initial parameters")
    for path, leaf in leaves:
        dtype = _dtype(f"params{jax.tree_util.keystr(path)}", leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise UserError(
                f"params{jax.tree_util.keystr(path)} is {dtype}, which has no gradient; give floating-point parameters"
            )
    return jax.tree.map(_as_array, params)


def meta_parameters(meta: PyTree) -> PyTree:
    """Converts the meta-parameters to arrays.

    Raises:
        UserError: a leaf is not an array or a number.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(meta):
        _dtype(f"meta{jax.tree_util.keystr(path)}", leaf)
    return jax.tree.map(_as_array, meta)


def _dtype(name: str, leaf: Any) -> Any:
    try:
        return jax.dtypes.result_type(leaf)
    except (TypeError, ValueError):
        raise UserError(
            f"{name} is {leaf!r}, which is not an array; give arrays, and close over other objects"
        ) from None


def _as_array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf, jax.dtypes.result_type(leaf))


def scalar_loss(name: str, loss: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a loss so that `scalar` checks its result at each trace."""

    @functools.wraps(loss, updated=())
    def checked(*args: Any) -> Any:
        return scalar(name, loss(*args))

    return checked


def scalar(name: str, value: Any) -> Any:
    """Returns a loss value unchanged.

    Raises:
        UserError: the value is not a real floating-point scalar.

    >>> scalar("outer_loss", jnp.ones(3))
    Traceback (most recent call last):
    mass_jax.errors.UserError: outer_loss returned shape (3,), not a scalar; reduce it, for example with jnp.mean
    """
    if isinstance(value, tuple | list):
        fix = "return the scalar alone, or pass has_aux=True" if name == "outer_loss" else "return the scalar alone"
        raise UserError(f"{name} returned a {type(value).__name__} of {len(value)}, not a scalar; {fix}")
    if not isinstance(value, jax.Array | np.ndarray | np.generic | int | float | complex):
        raise UserError(f"{name} returned {type(value).__name__}, not a scalar; return a floating-point scalar")
    dtype, shape = jax.dtypes.result_type(value), jnp.shape(value)
    if shape:
        raise UserError(f"{name} returned shape {shape}, not a scalar; reduce it, for example with jnp.mean")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise UserError(f"{name} returned {dtype}, which has no gradient; return a floating-point scalar")
    return value


def with_aux(value: Any) -> tuple[Any, Any]:
    """Returns the result `(scalar, aux)` of an outer loss with `has_aux`; raises a UserError for anything else."""
    if not (isinstance(value, tuple | list) and len(value) == 2):
        raise UserError(f"outer_loss returned {type(value).__name__}, but has_aux=True needs a pair (scalar, aux)")
    return scalar("outer_loss", value[0]), value[1]


def same_shapes(name: str, tree: PyTree, other_name: str, other: PyTree) -> None:
    """Checks that two trees have the same structure and leaf shapes.

    Raises:
        UserError: they differ.

    >>> same_shapes("grads", {"w": jnp.ones(2)}, "params", {"w": jnp.ones(3)})
    Traceback (most recent call last):
    mass_jax.errors.UserError: grads must have the structure and shapes of params: ...
    """
    try:
        chex.assert_trees_all_equal_shapes(tree, other)
    except AssertionError as error:
        reason = " ".join(str(error).split()).removeprefix("[Chex] ")
        raise UserError(f"{name} must have the structure and shapes of {other_name}: {reason}") from None


def all_used(meta: PyTree, used: Callable[[Any], Any]) -> None:
    """Checks that a function depends on every floating-point leaf of the meta-parameters.

    Args:
        meta: meta-parameters; integer leaves have no derivative and are skipped.
        used: function of `meta`; it is traced, not evaluated.

    Raises:
        UserError: some leaves are unused, so their meta-gradient would be zero; the message names them.
    """
    active, rest = trees.split(meta)
    named = jax.tree_util.tree_leaves_with_path(active)
    values, structure = jax.tree.flatten(active)
    closed = jax.make_jaxpr(lambda leaves: used(trees.merge(jax.tree.unflatten(structure, leaves), rest)))(values)
    _, needed = pe.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    unused = [jax.tree_util.keystr(path) for (path, _), each in zip(named, needed, strict=True) if not each]
    if unused:
        names = ", ".join(f"meta{path}" for path in unused[:4]) + (" ..." if len(unused) > 4 else "")
        raise UserError(
            f"{names}: neither the inner gradient nor the optimizer depends on it, so its meta-gradient is zero; "
            "remove it, or pass unused_meta='zero'"
        )
