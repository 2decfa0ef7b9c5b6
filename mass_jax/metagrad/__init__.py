"""Differentiating through an inner optimization loop, exactly, at a cost close to a gradient; jax and optax only."""

from mass_jax.metagrad.adjoints import (
    Adjoint,
    FirstOrder,
    MixedMode,
    ReverseUnroll,
    Truncated,
    WeightedMixedMode,
)
from mass_jax.metagrad.inner import Adapted, adapt
from mass_jax.metagrad.losses import WeightedLoss
from mass_jax.metagrad.meta import Aux, MetaGradient, meta_gradient
from mass_jax.metagrad.mixed import mixed_grad, mixed_value_and_grad

__all__ = [
    "Adapted",
    "Adjoint",
    "Aux",
    "FirstOrder",
    "MetaGradient",
    "MixedMode",
    "ReverseUnroll",
    "Truncated",
    "WeightedLoss",
    "WeightedMixedMode",
    "adapt",
    "meta_gradient",
    "mixed_grad",
    "mixed_value_and_grad",
]
