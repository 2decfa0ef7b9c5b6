"""Suggested fixes for optimizers without a usable meta-gradient; each is tried before it is named."""

import types
from collections.abc import Callable, Iterator
from typing import Any

from mass_jax.metagrad import rebuilding, transformations
from mass_jax.metagrad.optimizers import SUPPORT
from mass_jax.metagrad.trees import PyTree

_Usable = Callable[[Any], bool]

_MULTI_STEPS = "take at least every_k_schedule inner steps, since MultiSteps updates no earlier"
_DEFAULT = "use sgd, or adamw with eps_root=1e-8"
_RATE = "give a learning rate, or a schedule, that is not 0 in these inner steps"
_SMOOTH = "use sgd or adagrad, without clipping or normalization"
# muon, for example, contains an adam whose settings cannot fix it.
_REJECTED = {support.state: support.advice for support in SUPPORT.values() if support.state and not support.exact}
_FIXES = {support.state: support.advice for support in SUPPORT.values() if support.state and support.exact}
_FIXED = {state: advice for state, advice in _FIXES.items() if advice.startswith("use ")}  # sm3
_SETTINGS = (("eps_root", 1e-8), ("eps", 1e-3), ("min_norm", 1e-3), ("eps_in_sqrt", True))
_WITH_EPS = ("scale_by_rms", "scale_by_stddev", "scale_by_adamax")  # eps smooths these
_CLIPS = ("clip", "clip_by_global_norm", "clip_by_block_rms", "adaptive_grad_clip")


def fix_for(optimizer: Any, params: PyTree, usable: _Usable, steps: int | None = None) -> str:
    """Returns one line on how to fix an optimizer whose meta-gradient is NaN, zero or wrong.

    Args:
        optimizer: the optimizer.
        params: parameters to build its state for.
        usable: whether the meta-gradient through another optimizer is usable.
        steps: number of inner steps from which on the optimizer itself is usable; None if none is known.

    >>> import jax.numpy as jnp, optax
    >>> fix_for(optax.chain(optax.clip(1.0), optax.adam(0.1)), jnp.zeros(2), usable=lambda other: True)
    'pass eps_root=1e-8 (its default eps_root=0 takes the root of a second moment that is zero where the gradient ...'
    """
    transformation = transformations.build(optimizer, None)
    names = _classes(transformations.initial_state(transformation, params))
    for state, fix in (_REJECTED | _FIXED).items():
        if state in names:
            return fix
    if steps is not None:
        zero = "since the updates of earlier ones are 0, or start the schedule above 0"
        return _MULTI_STEPS if "MultiStepsState" in names else f"take at least {steps} inner steps, {zero}"
    changes = [
        (_setting_text(name, value, names), changed)
        for name, value in _SETTINGS
        if (changed := _raised(transformation, name, value)) is not None
    ]
    tried = _first(transformation, changes, usable)
    if tried is None and not rebuilding.parts(transformation):  # nothing could be tried
        tried = next((fix for state, fix in _FIXES.items() if state in names), None)
    return tried or _DEFAULT


def smoother(optimizer: Any, scale: float, usable: _Usable) -> str:
    """Returns one line on how to make a scale-invariant optimizer smooth.

    Args:
        optimizer: the optimizer.
        scale: typical absolute entry of the gradient.
        usable: whether another optimizer is not scale-invariant.

    >>> import optax
    >>> smoother(optax.adam(0.1, eps_root=1e-8), 0.03, usable=lambda other: True)
    'pass eps_root of about 0.008, or use sgd or adagrad'
    """
    transformation = transformations.build(optimizer, None)
    sizes = {"eps_root": [(factor * scale) ** 2 for factor in (3, 30)], "eps": [(3 * scale) ** 2, 3 * scale]}
    changes = []
    for name, values in sizes.items():
        for value in sorted(float(f"{value:.1g}") for value in values):
            changed = _raised(transformation, name, value)
            if changed is not None:
                changes.append((f"pass {name} of about {value:g}, or use sgd or adagrad", changed))
    return _first(transformation, changes, usable) or _SMOOTH


def _first(optimizer: Any, changes: list[tuple[str, Any]], usable: _Usable) -> str | None:
    """Returns the first fix that works: a setting, leaving out a part, or both."""
    candidates = [*changes, *_without_one(optimizer)]
    candidates += [
        (f"{text}; and {removal}", changed) for text, each in changes[:1] for removal, changed in _without_one(each)
    ]
    return next((text for text, changed in candidates if usable(changed)), None)


def _without_one(optimizer: Any) -> Iterator[tuple[str, Any]]:
    """Yields the optimizers without one of their parts, with the advice to remove it."""
    for part in rebuilding.parts(optimizer):
        yield _removal_text(part), rebuilding.without(optimizer, part)


def _removal_text(part: types.FunctionType) -> str:
    """Returns the advice to change or remove a part."""
    name = rebuilding.name_of(part)
    if name in ("scale", "scale_by_schedule"):
        return _RATE
    return f"raise the threshold of {name}, or remove it" if name in _CLIPS else f"remove {name}"


def _raised(optimizer: Any, name: str, value: Any) -> Any:
    """Returns an optimizer in which a setting is at least a value; None if it is so already, or there is none."""
    changed = [
        function
        for function, current in rebuilding.holders(optimizer, name).items()
        if current < value and (name != "eps" or rebuilding.name_of(function) in _WITH_EPS)
    ]
    return rebuilding.with_setting(optimizer, changed, name, value) if changed else None


def _setting_text(name: str, value: Any, names: set[str]) -> str:
    """Returns the advice to pass a setting, with the reason if the table has one."""
    for support in SUPPORT.values():
        if support.exact and support.state in names and name in support.settings:
            return support.advice
    return f"pass {name}={value!r}".replace("e-0", "e-")


def _classes(node: Any) -> set[str]:
    """Returns the names of all state classes at and below a node."""
    if not isinstance(node, tuple | list | dict):
        return set()
    children = node.values() if isinstance(node, dict) else node
    return {type(node).__name__}.union(*(_classes(child) for child in children))
