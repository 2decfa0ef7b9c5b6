"""Tests for mass_jax.runtime.mesh, with eight CPU devices."""

import dataclasses
import itertools

import jax
import pytest

from mass_jax.runtime.mesh import AXES, _arrange, describe, make_mesh


@pytest.mark.parametrize(
    ("layout", "sizes"),
    [("auto", (8, 1, 1)), ("data:2,fsdp:4", (2, 4, 1)), ("tensor:8", (1, 1, 8)), ("tensor:2,fsdp:2,data:2", (2, 2, 2))],
)
def test_make_mesh_accepts_any_axis_order(layout, sizes):
    mesh = make_mesh(layout)
    assert tuple(mesh.shape.values()) == sizes
    assert mesh.axis_names == AXES
    assert all(kind == jax.sharding.AxisType.Auto for kind in mesh.axis_types)
    assert dict(make_mesh(describe(mesh)).shape) == dict(mesh.shape)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("data:3", "takes 3 devices, but there are 8; give sizes that multiply to 8, like --mesh=data:8"),
        ("model:8", "'model:8' is not an axis"),
        ("data:0", "'data:0' is not an axis"),
        ("data", "'data' is not an axis"),
        ("", "is not an axis"),
        ("data:2,data:4", "data is given twice; give it one size"),
    ],
)
def test_make_mesh_refuses_bad_layout(layout, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(layout)


@dataclasses.dataclass(frozen=True)
class Chip:
    """Attributes of a device of a TPU v4 topology."""

    id: int
    coords: tuple[int, int, int]
    process_index: int
    platform: str = "tpu"
    device_kind: str = "TPU v4"
    core_on_chip: int = 0
    slice_index: int = 0


@pytest.mark.parametrize("sizes", [(16, 1, 1), (8, 2, 1), (8, 1, 2), (4, 2, 2), (2, 2, 4)])
def test_mesh_keeps_process_problems_contiguous(sizes):
    """Uses four hosts of 2x2x1 chips; ordered by links alone, host 0 would get problems 0 and 4 of 8."""
    places = itertools.product(range(4), range(2), range(2))
    chips = [Chip(i, (x, y, z), process_index=z) for i, (z, y, x) in enumerate(places)]
    rows = _arrange(sizes, chips, 1, "").reshape(sizes[0], -1)
    assert sorted(chip.id for chip in rows.flat) == list(range(16))
    for process in range(4):
        own = [i for i, row in enumerate(rows) if any(chip.process_index == process for chip in row)]
        assert own == list(range(own[0], own[-1] + 1))
