"""TPU chips that can be planned for: what a program may use of their memory, and their peaks for a roofline."""

from typing import Any, NamedTuple

import jax

from mass_jax.metagrad.report import topology_devices

GIB = 2**30


class Chip(NamedTuple):
    """One device as JAX counts them (half a chip of a TPU7x).

    Args:
        hbm_bytes: what the compiler lets a program have; less than what the chip is sold with.
        flops: bfloat16 peak, operations a second.
        bandwidth: of its memory, bytes a second.
    """

    hbm_bytes: float
    flops: float
    bandwidth: float


# Memory as libtpu 0.0.51 names it when it refuses a program; peaks as Google Cloud's pages on each version state them.
CHIPS = {
    "v4": Chip(30.75 * GIB, 275e12, 1.228e12),
    "v5e": Chip(15.75 * GIB, 197e12, 0.819e12),
    "v5p": Chip(95.74 * GIB, 459e12, 2.765e12),
    "v6e": Chip(31.25 * GIB, 918e12, 1.64e12),
    "tpu7x": Chip(94.75 * GIB, 1153e12, 3.69e12),
}


def devices_of(topology: str, num_slices: int = 1) -> list[Any]:
    """Devices to compile for: of a described TPU like "v5e:4x4", or with "local" those that are here.

    Raises:
        ValueError: unknown chip or shape; names the fix. RuntimeError: libtpu is missing.
    """
    if topology == "local":
        return list(jax.devices())
    if topology.partition(":")[0] not in CHIPS:
        known = ", ".join(CHIPS)
        raise ValueError(f"--topology={topology!r} is unknown; write local, or {known} with a shape, like v5e:4x4")
    return list(topology_devices(topology, num_slices))


def chip_of(topology: str) -> Chip | None:
    """Memory and peaks of a topology's chip; None where nobody told (a CPU, another accelerator without statistics)."""
    if topology != "local":
        return CHIPS[topology.partition(":")[0]]
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    return Chip(limit, 0.0, 0.0) if limit else None
