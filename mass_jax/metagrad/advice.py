"""Suggested fixes for optimizers without a usable meta-gradient, keyed by the type of their state."""

from typing import Any

from mass_jax.metagrad import transformations

_FIXES = {
    "MuonState": "use adamw with eps_root=1e-8 (muon divides by the norm of a momentum that is zero at first)",
    "ScaleByAdamState": "pass eps_root=1e-8 (its default 0 takes the root of a zero second moment)",
    "ScaleByBeliefState": "pass eps_root=1e-8 (its root of a zero second moment is far too steep)",
    "ScaleByRmsState": "leave eps_in_sqrt=True (the root of a zero second moment has no derivative)",
    "ScaleByAmsgradState": "pass eps_root=1e-8 (its default 0 takes the root of a zero second moment)",
    "ScaleByLionState": "use adamw with eps_root=1e-8 (lion moves by a sign, whose derivative is zero)",
    "ScaleByNovogradState": "use adamw with eps_root=1e-8 (novograd divides by a layer's norm, which is zero at first)",
    "FactoredState": "use adamw with eps_root=1e-8 (adafactor divides by a root-mean-square that is zero at first)",
    "MultiStepsState": "take at least every_k_schedule inner steps, since MultiSteps updates no earlier",
    "ScaleBySM3State": "use adagrad (sm3 divides by a root of sums that are zero at first)",
}
_OTHERWISE = "use sgd, or adamw with eps_root=1e-8"


def fix_for(optimizer: Any, params: Any) -> str:
    """One line on what to use instead.

    >>> import jax.numpy as jnp, optax
    >>> fix_for(optax.chain(optax.clip(1.0), optax.adam(0.1)), jnp.zeros(2))
    'pass eps_root=1e-8 (its default 0 takes the root of a zero second moment)'
    """
    names = _classes(transformations.initial_state(transformations.build(optimizer, None), params))
    return next((fix for name, fix in _FIXES.items() if name in names), _OTHERWISE)


def _classes(node: Any) -> set[str]:
    """Names of all state classes at and below a node."""
    if not isinstance(node, tuple | list | dict):
        return set()
    children = node.values() if isinstance(node, dict) else node
    return {type(node).__name__}.union(*(_classes(child) for child in children))
