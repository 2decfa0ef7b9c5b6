"""What a run stands on: meshes and rules, many processes, checkpoints, metrics, signals, the workdir."""

from mass_jax.runtime.checkpoints import Checkpoints
from mass_jax.runtime.distributed import agreed_maximum, gather_rows, is_first, join, mine
from mass_jax.runtime.feed import Feed
from mass_jax.runtime.lock import lock_workdir
from mass_jax.runtime.mesh import make_mesh
from mass_jax.runtime.metrics import MetricsLog, progress
from mass_jax.runtime.rules import check_divides, check_layout, constrain, shardings, use_mesh
from mass_jax.runtime.signals import Interrupted, Stop, stop_on_signals
from mass_jax.runtime.workdir import check_workdir, claim_workdir, read_settings, workdir_path, write_atomically

__all__ = [
    "Checkpoints",
    "Feed",
    "Interrupted",
    "MetricsLog",
    "Stop",
    "agreed_maximum",
    "check_divides",
    "check_layout",
    "check_workdir",
    "claim_workdir",
    "constrain",
    "gather_rows",
    "is_first",
    "join",
    "lock_workdir",
    "make_mesh",
    "mine",
    "progress",
    "read_settings",
    "shardings",
    "stop_on_signals",
    "use_mesh",
    "workdir_path",
    "write_atomically",
]
