"""Memory of compiled programs as reported by the compiler, for this device or for a described TPU topology."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from mass_jax.errors import first_line

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class CompiledReport:
    """Memory of a compiled program, in bytes per device; `str()` explains each figure.

    Attributes:
        device: kind of device.
        argument_bytes: inputs.
        output_bytes: outputs.
        alias_bytes: part of the outputs that reuses input buffers.
        temp_bytes: temporaries.
        host_temp_bytes: temporaries offloaded to the host.
        compile_seconds: wall-clock compilation time.
    """

    device: str
    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    temp_bytes: int
    host_temp_bytes: int
    compile_seconds: float

    @property
    def total_bytes(self) -> int:
        """Bytes of arguments, outputs, and temporaries on one device, as laid out by the compiler."""
        return self.argument_bytes + self.output_bytes - self.alias_bytes + self.temp_bytes

    def __str__(self) -> str:
        return (
            f"{self.device}: per device, as laid out by the compiler; the program was not run\n"
            f"  arguments   {self.argument_bytes / MIB:10.1f} MiB  inputs, which other programs may share\n"
            f"  outputs     {self.output_bytes / MIB:10.1f} MiB  of which {self.alias_bytes / MIB:.1f} reuse inputs\n"
            f"  temporaries {self.temp_bytes / MIB:10.1f} MiB  without buffers of the runtime and code\n"
            f"  on the host {self.host_temp_bytes / MIB:10.1f} MiB  offloaded temporaries\n"
            f"  compiled in {self.compile_seconds:10.1f} s    on this machine, without a compilation cache"
        )


def compiled_report(function: Callable[..., Any], *args: Any, topology: str | None = None) -> CompiledReport:
    """Compiles a function without running it and reports its memory.

    Args:
        function: function to compile; shardings and donations of a jitted function are respected.
        *args: arrays or `jax.ShapeDtypeStruct`s, for example from `jax.eval_shape`; their shardings are kept.
        topology: None for the current device, or a TPU topology such as "v5e:4x4" or "v5p:2x2x1", which needs `libtpu`.
            Arguments without a sharding are then placed on its first chip. Build meshes on
            `topology_devices(topology)`.

    Returns:
        The `CompiledReport`.

    Raises:
        RuntimeError: `libtpu` is missing, or (as raised by the compiler) the program does not fit the TPU.

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
    return report_of(compiled, time.perf_counter() - start, device)


def report_of(compiled: jax.stages.Compiled, compile_seconds: float, device: str) -> CompiledReport:
    """Returns the memory of a compiled program.

    Args:
        compiled: the program.
        compile_seconds: wall-clock time that its compilation took.
        device: kind of device.
    """
    stats: Any = compiled.memory_analysis()
    return CompiledReport(
        device,
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes,
        stats.alias_size_in_bytes,
        stats.temp_size_in_bytes,
        stats.host_temp_size_in_bytes,
        compile_seconds,
    )


def topology_devices(topology: str, num_slices: int = 1) -> Sequence[Any]:
    """Returns the devices of a TPU topology, for compiling without a TPU.

    Args:
        topology: topology of one slice, such as "v5e:4x4".
        num_slices: number of slices.

    Returns:
        Devices from which to build a mesh.


    Raises:
        RuntimeError: `libtpu` is not installed, or does not know the topology.
    """
    # Otherwise libtpu queries a metadata server that answers only inside Google Cloud.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    try:
        return topologies.get_topology_desc(topology, platform="tpu", num_slices=num_slices).devices
    except Exception as error:
        reason = first_line(error)
        fix = "is libtpu installed (`pip install libtpu`), and does it know that topology?"
        if "lockfile" in reason:  # libtpu advises removing a file that another process may hold
            reason, fix = "another process uses libtpu", "wait for it, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1"
        raise RuntimeError(f"cannot describe topology={topology!r}: {reason}; {fix}") from None


def _placed(leaf: Any, sharding: Any) -> Any:
    given = leaf.sharding if isinstance(leaf, jax.ShapeDtypeStruct) else None
    dtype = jax.dtypes.result_type(leaf) if not isinstance(leaf, jax.ShapeDtypeStruct) else leaf.dtype
    return jax.ShapeDtypeStruct(jnp.shape(leaf), dtype, sharding=given or sharding)
