"""Meshes on the eight forced CPU devices."""

import jax
import pytest

from mass_jax.runtime.mesh import AXES, describe, make_mesh


@pytest.mark.parametrize(
    ("layout", "sizes"),
    [("auto", (8, 1, 1)), ("data:2,fsdp:4", (2, 4, 1)), ("tensor:8", (1, 1, 8)), ("tensor:2,fsdp:2,data:2", (2, 2, 2))],
)
def test_sizes_in_any_order_and_auto(layout, sizes):
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
    ],
)
def test_what_cannot_be_names_the_fix(layout, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(layout)
