"""Suggested fixes for optimizers without a usable meta-gradient, looked up by the type of their state."""

from typing import Any

from mass_jax.metagrad import transformations
from mass_jax.metagrad.optimizers import SUPPORT
from mass_jax.metagrad.trees import PyTree

_MULTI_STEPS = "take at least every_k_schedule inner steps, since MultiSteps updates no earlier"
_ROOTED = {support.state for support in SUPPORT.values() if "eps_root" in support.settings} - {""}
_DEFAULT = "use sgd, or adamw with eps_root=1e-8"
# Rejected optimizers first: muon, for example, contains an adam whose settings cannot fix it.
_FIXES = {
    support.state: support.advice for support in sorted(SUPPORT.values(), key=lambda s: s.exact) if support.state
} | {"MultiStepsState": _MULTI_STEPS}


def fix_for(optimizer: Any, params: PyTree) -> str:
    """Returns one line on what to use instead of an optimizer.

    >>> import jax.numpy as jnp, optax
    >>> fix_for(optax.chain(optax.clip(1.0), optax.adam(0.1)), jnp.zeros(2))
    'pass eps_root=1e-8 (its default eps_root=0 takes the root of a second moment that is zero where the gradient ...'
    """
    names = _classes(transformations.initial_state(transformations.build(optimizer, None), params))
    return next((fix for name, fix in _FIXES.items() if name in names), _DEFAULT)


def smoother(optimizer: Any, params: PyTree, scale: float) -> str:
    """Returns one line on how to make a scale-invariant optimizer smooth at gradient entries of the given scale.

    >>> import jax.numpy as jnp, optax
    >>> smoother(optax.adam(0.1, eps_root=1e-8), jnp.zeros(2), 0.03)
    'pass eps_root of about 0.008, the square of 3 times a typical entry, or use sgd or adagrad'
    """
    names = _classes(transformations.initial_state(transformations.build(optimizer, None), params))
    if _ROOTED & names:
        return (
            f"pass eps_root of about {(3 * scale) ** 2:.1g}, the square of 3 times a typical entry, or use sgd or "
            f"adagrad"
        )
    return "remove normalization by the norm of the gradient, or use sgd, adagrad, or adamw with a larger eps_root"


def _classes(node: Any) -> set[str]:
    """Returns the names of all state classes at and below a node."""
    if not isinstance(node, tuple | list | dict):
        return set()
    children = node.values() if isinstance(node, dict) else node
    return {type(node).__name__}.union(*(_classes(child) for child in children))
