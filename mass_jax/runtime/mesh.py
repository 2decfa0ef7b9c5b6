"""The one place where device meshes are built, over devices that are here or only described."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")
MOST_TENSOR = 4  # heads and kv heads of every published Llama divide by it, and it is one ring of a TPU's links


def make_mesh(layout: str = "auto", devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axes data (tasks), fsdp (weights, and rows of a task) and tensor (heads, features).

    Args:
        layout: sizes like "data:2,fsdp:4,tensor:2" (an axis that is not named has size 1), or "auto": CPUs all on
            data; accelerators with up to 4 on tensor and the rest of a slice on fsdp, slices on data.
        devices: None takes all devices of all processes; or those of a described TPU.

    Returns:
        A mesh of Auto axes, in an order of devices that suits their links.

    Raises:
        ValueError: unknown axis, bad size, or sizes that do not multiply to the number of devices.

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
    """Sizes of the axes, in the order of `AXES`.

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
            raise ValueError(f"--mesh={layout}: {axis} is named twice; give it one size")
        sizes[axis] = int(size)
    data, fsdp, tensor = (sizes.get(axis, 1) for axis in AXES)
    return data, fsdp, tensor


def describe(mesh: Mesh) -> str:
    """A mesh in the form that `--mesh` takes.

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
    """Devices in an array; between slices, whose links are slow, lies the data axis only."""
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
    """The data axis in an order in which the tasks of each process lie side by side: it feeds them as one slice."""
    order = sorted(range(len(devices)), key=lambda i: sorted({device.process_index for device in devices[i].flat}))
    return devices[order]
