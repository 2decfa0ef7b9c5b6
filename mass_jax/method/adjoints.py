"""Adjoints of the inner loop by name."""

from collections.abc import Callable
from typing import Any

from mass_jax import metagrad as mg

ADJOINTS: dict[str, Callable[..., mg.Adjoint]] = {
    "weighted": mg.WeightedMixedMode,
    "mixed": mg.MixedMode,
    "reverse": mg.ReverseUnroll,
    "first_order": mg.FirstOrder,
    "truncated": mg.Truncated,
}


def make_store(kind: str, directory: str = "") -> mg.Store | None:
    """Returns the store of "host" or "disk", or None for "device".

    >>> make_store("disk", "/scratch")
    DiskStore(directory='/scratch')
    """
    return {"device": None, "host": mg.HostStore(), "disk": mg.DiskStore(directory or None)}[kind]


def make_adjoint(name: str, steps: int = 0, remat: str = "auto", store: mg.Store | None = None) -> mg.Adjoint:
    """Returns an adjoint by its name in `ADJOINTS`.

    Args:
        name: the name.
        steps: number of last inner steps that "truncated" differentiates through; the others ignore it.
        remat: what the adjoint stores of each step, for the adjoints that have a choice; "auto" is their default.
        store: where "weighted" and "mixed" store it; None is on the device, as for the others.

    Raises:
        UserError: the adjoint does not know the value of `remat`, or `steps` is less than 1.

    >>> make_adjoint("truncated", 2), make_adjoint("mixed", remat="step")
    (Truncated(steps=2), MixedMode(remat='step'))
    """
    options: dict[str, Any] = {} if remat == "auto" else {"remat": remat}
    if store is not None:
        options["store"] = store
    return ADJOINTS[name](steps) if name == "truncated" else ADJOINTS[name](**options)
