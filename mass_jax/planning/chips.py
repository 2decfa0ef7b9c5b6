"""Chips that can be planned for: usable memory, and peak rates for a roofline estimate."""

from typing import Any, NamedTuple

import jax

from mass_jax.metagrad.report import topology_devices
from mass_jax.planning import gpus

GIB = 2**30


class Chip(NamedTuple):
    """One device as JAX counts them; a TPU7x chip counts as two.

    Attributes:
        hbm_bytes: memory that the compiler allows a program to use, in bytes; less than the nominal memory.
        flops: bfloat16 peak, in operations per second.
        bandwidth: memory bandwidth, in bytes per second.
    """

    hbm_bytes: float
    flops: float
    bandwidth: float


# Memory as libtpu 0.0.51 states it when it refuses a program; peaks from Google Cloud's page on each version. Peaks of
# an H100 (SXM5) from NVIDIA's data sheet; XLA_PYTHON_CLIENT_MEM_FRACTION=.91 gives JAX 72 GiB of its 80 GB.
CHIPS = {
    "v4": Chip(30.75 * GIB, 275e12, 1.228e12),
    "v5e": Chip(15.75 * GIB, 197e12, 0.819e12),
    "v5p": Chip(95.74 * GIB, 459e12, 2.765e12),
    "v6e": Chip(31.25 * GIB, 918e12, 1.64e12),
    "tpu7x": Chip(94.75 * GIB, 1153e12, 3.69e12),
    "h100": Chip(72 * GIB, 989e12, 3.35e12),
}


def devices_of(topology: str, num_slices: int = 1) -> list[Any]:
    """Returns the devices to compile for.

    Args:
        topology: TPU topology such as "v5e:4x4", GPUs such as "h100:1", or "local" for the attached devices.
        num_slices: number of slices of that topology.

    Raises:
        ValueError: If the chip or shape is unknown, or there are slices of GPUs.
        RuntimeError: If libtpu, or JAX's CUDA plugin, is not installed.
    """
    if topology == "local":
        return list(jax.devices())
    if topology.partition(":")[0] not in CHIPS:
        known = f"{', '.join(CHIPS)} with a shape, like v5e:4x4 or h100:1"
        raise ValueError(f"--topology={topology!r} is unknown; write local, or {known}")
    if topology.partition(":")[0] in gpus.CARDS:
        if num_slices != 1:
            raise ValueError(f"--num_slices={num_slices} is for TPUs; leave it out with --topology={topology}")
        return gpus.gpu_devices(topology)
    return list(topology_devices(topology, num_slices))


def chip_of(topology: str) -> Chip | None:
    """Returns the chip of a topology; None if its memory is unknown, as for CPUs."""
    if topology != "local":
        return CHIPS[topology.partition(":")[0]]
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    return Chip(limit, 0.0, 0.0) if limit else None
