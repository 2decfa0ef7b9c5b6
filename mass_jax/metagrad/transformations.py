"""Conversion of optimizers to optax transformations, and one step of them."""

import copy
import functools
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from mass_jax.errors import UserError, first_line
from mass_jax.metagrad import inactive
from mass_jax.metagrad.trees import PyTree

Optimizer: TypeAlias = "optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]"

_MISSING = re.compile(r"missing \d+ required (?:keyword-only|positional) arguments?: (.*)")
_ADVICE = "pass an optax optimizer, such as optax.sgd(0.1), or a function of meta that returns one"


def as_transformation(optimizer: Any) -> optax.GradientTransformation | None:
    """Converts an optimizer to optax form.

    Args:
        optimizer: a `GradientTransformation`, an object with `gradient_transformation()` such as `optax.MultiSteps`, an
            object with methods `init` and `update`, a pair `(init, update)`, or a function of the meta-parameters.

    Returns:
        The transformation; None for a function of the meta-parameters, which must be called first.

    Raises:
        UserError: the object is none of these.

    >>> import optax
    >>> as_transformation(optax.MultiSteps(optax.sgd(0.1), 2)).init is not None
    True
    >>> as_transformation("adam")
    Traceback (most recent call last):
    mass_jax.errors.UserError: optimizer='adam' is a name; pass make_optimizer('adam', learning_rate) or optax.adam(...)
    """
    if isinstance(optimizer, optax.GradientTransformation):
        return optimizer
    if isinstance(optimizer, str):
        raise UserError(
            f"optimizer={optimizer!r} is a name; pass make_optimizer({optimizer!r}, learning_rate) "
            f"or optax.{optimizer}(...)"
        )
    if isinstance(optimizer, type):
        raise UserError(f"optimizer={optimizer.__name__} is a class; {_ADVICE}")
    if callable(getattr(optimizer, "gradient_transformation", None)):
        return _with_wide_accumulators(optimizer).gradient_transformation()
    pair = (getattr(optimizer, "init", None), getattr(optimizer, "update", None))
    if isinstance(optimizer, tuple | list) and len(optimizer) == 2:
        pair = (optimizer[0], optimizer[1])
    if callable(pair[0]) and callable(pair[1]):
        return optax.GradientTransformation(*pair)
    if not callable(optimizer):
        raise UserError(f"optimizer={optimizer!r} is not an optimizer; {_ADVICE}")
    return None


def _with_wide_accumulators(optimizer: Any) -> Any:
    """Returns `optax.MultiSteps` with float64 accumulators under `jax.enable_x64`; its default is float32."""
    if not isinstance(optimizer, optax.MultiSteps) or jax.dtypes.canonicalize_dtype(float) != jnp.float64:
        return optimizer
    wide = copy.copy(optimizer)
    wide._accumulator_dtype = jnp.float64
    return wide


def build(optimizer: Any, meta: PyTree) -> optax.GradientTransformation:
    """Builds the optax optimizer for the given meta-parameters.

    Raises:
        UserError: the object is neither an optimizer nor a function that returns one.
    """
    transformation = as_transformation(optimizer)
    if transformation is not None:
        return transformation
    name = getattr(optimizer, "__name__", repr(optimizer))
    if str(getattr(optimizer, "__module__", "")).split(".")[0] == "optax" and not _is_scalar(meta):
        raise UserError(f"optimizer=optax.{name} is not called; pass optax.{name}(learning_rate)")
    built = optimizer(meta)
    transformation = None if built is None else as_transformation(built)
    if transformation is None:
        raise UserError(f"optimizer function {name} returned {built!r} for meta; return an optax optimizer")
    return transformation


def _is_scalar(meta: PyTree) -> bool:
    """Returns True if the meta-parameters are a single number, which may be the learning rate."""
    leaves = jax.tree.leaves(meta)
    return len(leaves) == 1 and jnp.ndim(leaves[0]) == 0


def initial_state(transformation: optax.GradientTransformation, params: PyTree) -> PyTree:
    """Returns the optimizer's state before the first update.

    Raises:
        UserError: initialization fails for these parameters.
    """
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts and floats
        return _one_line("initialization", transformation.init, params)


def step(
    transformation: optax.GradientTransformation, grads: PyTree, opt_state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """Returns parameters and optimizer state after one update, differentiable where norms are zero.

    Raises:
        UserError: the update needs more than the gradient, or changes shapes of the parameters or the state.
    """
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts and floats
        update = functools.partial(_one_line, "update", transformation.update)
        updates, new_state = inactive.differentiate_active_branch(update)(grads, opt_state, params)
        _check_same("parameters", params, updates, dtype=False)
        _check_same("optimizer state", opt_state, new_state, dtype=True)
        return optax.apply_updates(params, updates), new_state


def _one_line(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """Calls a method of an optimizer; converts errors to a UserError of one line."""
    try:
        return function(*args)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        missing = _MISSING.search(str(error))
        if missing:
            raise UserError(
                f"the optimizer's {what} needs {missing[1]}, but an inner loop passes only the gradient, the state "
                "and the parameters; use sgd, or adamw with eps_root=1e-8"
            ) from error
        raise UserError(
            f"the optimizer's {what} failed: {first_line(error)}; use sgd, or adamw with eps_root=1e-8"
        ) from error


def _check_same(name: str, old: Any, new: Any, dtype: bool) -> None:
    """Raises a UserError if an update changes structure or shapes (or dtypes), which a loop cannot carry."""
    structures = [str(jax.tree.structure(tree)) for tree in (old, new)]
    if structures[0] != structures[1]:
        raise UserError(
            "the optimizer changes the structure of the {}: {:.80} becomes {:.80}".format(name, *structures)
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True)
    for (path, before), after in pairs:
        same = jnp.shape(before) == jnp.shape(after)
        if not same or (dtype and jax.dtypes.result_type(before) != jax.dtypes.result_type(after)):
            raise UserError(
                f"the optimizer changes the {name} at {jax.tree_util.keystr(path)} from {jax.typeof(before)} to "
                f"{jax.typeof(after)}; an inner loop needs updates of the same shape and state of the same dtype"
            )
