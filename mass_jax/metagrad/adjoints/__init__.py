r"""Adjoint methods; pass one as `adjoint=` to `meta_gradient`.

Each adjoint is a subclass of `Adjoint` in a file of its own. Docstrings state costs in these units: K inner steps, M
examples, P bytes of parameters plus optimizer state, and A bytes of activations of one gradient of the inner loss,
including the rematerialization that the loss itself applies. Times are multiples of one gradient of the inner loss on
all M examples.
"""

from mass_jax.metagrad.adjoints.base import Adjoint, Aux, BilevelProblem, MetaGradient
from mass_jax.metagrad.adjoints.evolution import EvolutionStrategies
from mass_jax.metagrad.adjoints.first_order import FirstOrder
from mass_jax.metagrad.adjoints.identity_jacobian import SAMA, T1T2
from mass_jax.metagrad.adjoints.mixed_mode import MixedMode
from mass_jax.metagrad.adjoints.reverse_unroll import ReverseUnroll
from mass_jax.metagrad.adjoints.truncated import Truncated
from mass_jax.metagrad.adjoints.weighted_mixed_mode import WeightedMixedMode

__all__ = [
    "SAMA",
    "T1T2",
    "Adjoint",
    "Aux",
    "BilevelProblem",
    "EvolutionStrategies",
    "FirstOrder",
    "MetaGradient",
    "MixedMode",
    "ReverseUnroll",
    "Truncated",
    "WeightedMixedMode",
]
