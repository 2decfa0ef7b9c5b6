"""What keeps a run alive and visible: checkpoints, metrics, signals, the workdir."""

from mass_jax.runtime.checkpoints import Checkpoints
from mass_jax.runtime.metrics import MetricsLog, progress
from mass_jax.runtime.signals import Interrupted, Stop, stop_on_signals
from mass_jax.runtime.workdir import check_workdir, claim_workdir, write_atomically

__all__ = [
    "Checkpoints",
    "Interrupted",
    "MetricsLog",
    "Stop",
    "check_workdir",
    "claim_workdir",
    "progress",
    "stop_on_signals",
    "write_atomically",
]
