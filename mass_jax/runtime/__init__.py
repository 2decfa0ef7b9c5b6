"""Runtime infrastructure: meshes, processes, checkpoints, metrics, signals, workdirs and JSON Lines.

Names are imported on first use, so that `mass_jax.runtime.jsonl` can be used without importing JAX.
"""

from typing import TYPE_CHECKING

from mass_jax import lazy

if TYPE_CHECKING:
    from mass_jax.runtime.checkpoints import Checkpoints
    from mass_jax.runtime.compilation_cache import use_compilation_cache
    from mass_jax.runtime.compile_effort import use_compile_effort
    from mass_jax.runtime.distributed import agreed_maximum, gather_rows, is_first, join, mine
    from mass_jax.runtime.feed import Feed
    from mass_jax.runtime.lock import lock_workdir
    from mass_jax.runtime.mesh import make_mesh
    from mass_jax.runtime.metrics import MetricsLog, progress
    from mass_jax.runtime.remote.opening import open_workdir, peek_workdir, read_workdir
    from mass_jax.runtime.remote.store import check_url, is_url
    from mass_jax.runtime.rules import check_divides, check_layout, constrain, shardings, use_mesh
    from mass_jax.runtime.signals import Interrupted, Stop, stop_on_signals
    from mass_jax.runtime.workdir import (
        EPS_ROOT_NAME,
        check_settings,
        check_workdir,
        claim_workdir,
        holds_results,
        read_settings,
        workdir_path,
        write_atomically,
    )

__all__ = [
    "EPS_ROOT_NAME",
    "Checkpoints",
    "Feed",
    "Interrupted",
    "MetricsLog",
    "Stop",
    "agreed_maximum",
    "check_divides",
    "check_layout",
    "check_settings",
    "check_url",
    "check_workdir",
    "claim_workdir",
    "constrain",
    "gather_rows",
    "holds_results",
    "is_first",
    "is_url",
    "join",
    "lock_workdir",
    "make_mesh",
    "mine",
    "open_workdir",
    "peek_workdir",
    "progress",
    "read_settings",
    "read_workdir",
    "shardings",
    "stop_on_signals",
    "use_compilation_cache",
    "use_compile_effort",
    "use_mesh",
    "workdir_path",
    "write_atomically",
]
__getattr__, __dir__, _ = lazy.attach(
    __name__,
    {
        "EPS_ROOT_NAME": "workdir",
        "Checkpoints": "checkpoints",
        "Feed": "feed",
        "Interrupted": "signals",
        "MetricsLog": "metrics",
        "Stop": "signals",
        "agreed_maximum": "distributed",
        "check_divides": "rules",
        "check_layout": "rules",
        "check_settings": "workdir",
        "check_url": "remote.store",
        "check_workdir": "workdir",
        "claim_workdir": "workdir",
        "constrain": "rules",
        "gather_rows": "distributed",
        "holds_results": "workdir",
        "is_first": "distributed",
        "is_url": "remote.store",
        "join": "distributed",
        "lock_workdir": "lock",
        "make_mesh": "mesh",
        "mine": "distributed",
        "open_workdir": "remote.opening",
        "peek_workdir": "remote.opening",
        "progress": "metrics",
        "read_settings": "workdir",
        "read_workdir": "remote.opening",
        "shardings": "rules",
        "stop_on_signals": "signals",
        "use_compilation_cache": "compilation_cache",
        "use_compile_effort": "compile_effort",
        "use_mesh": "rules",
        "workdir_path": "workdir",
        "write_atomically": "workdir",
    },
)
lazy.require(__name__, "absl", "filelock", "flax", "orbax", "tqdm")
