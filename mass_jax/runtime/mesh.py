"""Construction of device meshes, over attached devices or over those of a TPU topology."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")
MOST_TENSOR = 4  # divides the heads and kv heads of every published Llama; one ring of a TPU's interconnect


def make_mesh(layout: str = "auto", devices: Sequence[Any] | None = None) -> Mesh:
    """Builds a mesh with the axes data (problems), fsdp (weights, and rows of a problem) and tensor (heads, features).

    Args:
        layout: axis sizes such as "data:2,fsdp:4,tensor:2", where omitted axes have size 1; or "auto", which puts CPUs
            on data, and of each slice of accelerators up to 4 on tensor and the rest on fsdp, with slices on data.
        devices: devices of the mesh; None means all devices of all processes.

    Returns:
        A mesh with Auto axes, whose device order suits the interconnect.

    Raises:
        ValueError: If an axis is unknown, a size is invalid, or the sizes do not multiply to the number of devices.

    >>> dict(make_mesh("fsdp:1", jax.devices()[:1]).shape)
    {'data': 1, 'fsdp': 1, 'tensor': 1}
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    cpu = devices[0].platform == "cpu"
    sizes = _auto(len(devices), slices, cpu) if layout == "auto" else parse(layout)
    if math.prod(sizes) != len(devices):
        fixed = ",".join(f"{axis}:{size}" for axis, size in zip(AXES, _auto(len(devices), slices, cpu), strict=True))
        raise ValueError(
            f"--mesh={layout} takes {math.prod(sizes)} devices, but there are {len(devices)}; "
            f"give sizes that multiply to {len(devices)}, like --mesh={fixed}"
        )
    return Mesh(_arrange(sizes, devices, slices, layout), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def parse(layout: str) -> tuple[int, int, int]:
    """Parses axis sizes such as "data:2,fsdp:4,tensor:2".

    Returns:
        The sizes in the order of `AXES`; omitted axes have size 1.

    Raises:
        ValueError: If an axis is unknown or repeated, or a size is invalid.

    >>> parse("fsdp:4,data:2")
    (2, 4, 1)
    """
    sizes: dict[str, int] = {}
    for part in layout.split(","):
        axis, _, size = part.partition(":")
        if axis not in AXES or not size.isdecimal() or int(size) < 1:
            raise ValueError(
                f"--mesh={layout}: {part!r} is not an axis with its size; write it like data:2,fsdp:4,tensor:2"
            )
        if axis in sizes:
            raise ValueError(f"--mesh={layout}: {axis} is given twice; give it one size")
        sizes[axis] = int(size)
    data, fsdp, tensor = (sizes.get(axis, 1) for axis in AXES)
    return data, fsdp, tensor


def describe(mesh: Mesh) -> str:
    """Formats a mesh in the syntax of `--mesh`.

    >>> describe(make_mesh("auto", jax.devices()[:1]))
    'data:1,fsdp:1,tensor:1'
    """
    return ",".join(f"{axis}:{size}" for axis, size in mesh.shape.items())


def _auto(count: int, slices: int, cpu: bool) -> tuple[int, int, int]:
    if cpu:
        return count, 1, 1
    each = count // slices
    tensor = math.gcd(each, MOST_TENSOR)
    return slices, each // tensor, tensor


def _arrange(sizes: tuple[int, int, int], devices: list[Any], slices: int, layout: str) -> Any:
    """Arranges devices in an array; only the data axis crosses the slow links between slices."""
    if slices == 1:
        return _by_process(mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True))
    data, fsdp, tensor = sizes
    if data % slices:
        raise ValueError(
            f"--mesh={layout}: data:{data} does not divide over {slices} slices; make data a multiple of {slices}"
        )
    return _by_process(
        mesh_utils.create_hybrid_device_mesh(
            (data // slices, fsdp, tensor), (slices, 1, 1), devices, allow_split_physical_axes=True
        )
    )


def _by_process(devices: Any) -> Any:
    """Orders the data axis so that each process feeds one contiguous slice of problems."""
    order = sorted(range(len(devices)), key=lambda i: sorted({device.process_index for device in devices[i].flat}))
    return devices[order]
