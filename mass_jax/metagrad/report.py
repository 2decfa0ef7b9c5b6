"""What a compiled program will hold in memory, told by the compiler, for this device or for a TPU that is not there."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class CompiledReport:
    """Bytes per device and seconds of one compilation; `str()` of it says what each figure is and is not."""

    device: str
    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    temp_bytes: int
    host_temp_bytes: int
    compile_seconds: float

    @property
    def total_bytes(self) -> int:
        """The program's peak on one device as the compiler lays it out: arguments, outputs and temporaries."""
        return self.argument_bytes + self.output_bytes - self.alias_bytes + self.temp_bytes

    def __str__(self) -> str:
        return (
            f"{self.device}: per device, as laid out by the compiler, nothing was run\n"
            f"  arguments   {self.argument_bytes / MIB:10.1f} MiB  inputs; whether others hold them too is not known\n"
            f"  outputs     {self.output_bytes / MIB:10.1f} MiB  of which {self.alias_bytes / MIB:.1f} reuse inputs\n"
            f"  temporaries {self.temp_bytes / MIB:10.1f} MiB  all between; not the runtime's own buffers, nor code\n"
            f"  on the host {self.host_temp_bytes / MIB:10.1f} MiB  temporaries offloaded\n"
            f"  compiled in {self.compile_seconds:10.1f} s    on this machine, caches aside"
        )


def compiled_report(function: Callable[..., Any], *args: Any, topology: str | None = None) -> CompiledReport:
    """Compiles without running and reports memory.

    Args:
        function: any function, or a jitted one (its shardings and donations count).
        *args: arrays or `jax.ShapeDtypeStruct`s (`jax.eval_shape` makes them for free); a struct's
            sharding is kept.
        topology: None for the present device, or a TPU such as "v5e:4x4" or "v5p:2x2x1" (needs `libtpu`); arguments
            without a sharding are then placed on its first chip. Build meshes on `topology_devices(topology)`.

    Returns:
        `CompiledReport`; bytes are per device.

    Raises:
        RuntimeError: `libtpu` is missing. The compiler's own error when the program cannot fit a TPU.

    >>> import jax.numpy as jnp
    >>> compiled_report(lambda x: x @ x, jax.ShapeDtypeStruct((256, 256), jnp.float32)).argument_bytes
    262144
    """
    if topology is not None:
        one = SingleDeviceSharding(topology_devices(topology)[0])
        args = jax.tree.map(lambda leaf: _placed(leaf, one), args)
        device = f"{topology} ({topology_devices(topology)[0].device_kind})"
    else:
        device = jax.devices()[0].device_kind
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    lowered = jitted.lower(*args)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    stats = compiled.memory_analysis()
    return CompiledReport(
        device,
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes,
        stats.alias_size_in_bytes,
        stats.temp_size_in_bytes,
        stats.host_temp_size_in_bytes,
        seconds,
    )


def topology_devices(topology: str, num_slices: int = 1) -> Sequence[Any]:
    """Devices of a described TPU, or of several slices of it, for building a mesh to compile for; no TPU is needed.

    Raises:
        RuntimeError: `libtpu` is not installed, or does not know the topology.
    """
    # Without these libtpu asks a metadata server, which answers only inside Google Cloud.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    try:
        return topologies.get_topology_desc(topology, platform="tpu", num_slices=num_slices).devices
    except Exception as error:
        reason = str(error).splitlines()[0]
        fix = "is libtpu installed (`pip install libtpu`), and does it know that topology?"
        if "lockfile" in reason:  # it names a file to remove, which another process may hold
            reason, fix = "another process uses libtpu", "wait for it, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1"
        raise RuntimeError(f"cannot describe topology={topology!r}: {reason}; {fix}") from None


def _placed(leaf: Any, sharding: Any) -> Any:
    given = leaf.sharding if isinstance(leaf, jax.ShapeDtypeStruct) else None
    dtype = jax.dtypes.result_type(leaf) if not isinstance(leaf, jax.ShapeDtypeStruct) else leaf.dtype
    return jax.ShapeDtypeStruct(jnp.shape(leaf), dtype, sharding=given or sharding)
