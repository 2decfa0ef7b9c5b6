"""Exact meta-gradients through an inner optimization loop, at a cost close to that of an ordinary gradient.

Start with `meta_gradient` and `WeightedLoss`; `MixedMode` and the other adjoints are passed as `adjoint=`. Needs jax,
optax, numpy, and chex only.
"""

from typing import TYPE_CHECKING

from mass_jax import lazy
from mass_jax.metagrad.adjoints import (
    SAMA,
    T1T2,
    Adjoint,
    Aux,
    BilevelProblem,
    EvolutionStrategies,
    FirstOrder,
    MetaGradient,
    MixedMode,
    ReverseUnroll,
    Truncated,
    WeightedMixedMode,
)
from mass_jax.metagrad.building import parse_optimizer
from mass_jax.metagrad.compare import Agreement, agreement, compare_adjoints, precision_report
from mass_jax.metagrad.explain import Blocker, explain_forward_mode
from mass_jax.metagrad.guard import ScaleInvariantWarning, check_optimizer
from mass_jax.metagrad.inner import Adapted, adapt
from mass_jax.metagrad.losses import WeightedLoss
from mass_jax.metagrad.meta import meta_gradient
from mass_jax.metagrad.mixed import mixed_grad, mixed_value_and_grad
from mass_jax.metagrad.norms import example_gradient_norms
from mass_jax.metagrad.optimizers import SUPPORT, Support, make_optimizer
from mass_jax.metagrad.report import CompiledReport, compiled_report, topology_devices
from mass_jax.metagrad.signal import Finding, SignalReport, findings, validate
from mass_jax.metagrad.store import DiskStore, HostStore, Store
from mass_jax.metagrad.support import support_table

if TYPE_CHECKING:
    from mass_jax.metagrad.benchmarking import BenchmarkResult, BenchmarkRow, benchmark

__all__ = [
    "SAMA",
    "SUPPORT",
    "T1T2",
    "Adapted",
    "Adjoint",
    "Agreement",
    "Aux",
    "BenchmarkResult",
    "BenchmarkRow",
    "BilevelProblem",
    "Blocker",
    "CompiledReport",
    "DiskStore",
    "EvolutionStrategies",
    "Finding",
    "FirstOrder",
    "HostStore",
    "MetaGradient",
    "MixedMode",
    "ReverseUnroll",
    "ScaleInvariantWarning",
    "SignalReport",
    "Store",
    "Support",
    "Truncated",
    "WeightedLoss",
    "WeightedMixedMode",
    "adapt",
    "agreement",
    "benchmark",
    "check_optimizer",
    "compare_adjoints",
    "compiled_report",
    "example_gradient_norms",
    "explain_forward_mode",
    "findings",
    "make_optimizer",
    "meta_gradient",
    "mixed_grad",
    "mixed_value_and_grad",
    "parse_optimizer",
    "precision_report",
    "support_table",
    "topology_devices",
    "validate",
]
__getattr__ = lazy.attach(__name__, dict.fromkeys(("BenchmarkResult", "BenchmarkRow", "benchmark"), "benchmarking"))[0]
