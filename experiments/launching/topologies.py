"""TPU topologies that Google Cloud offers, and their names."""

import math

from mass_jax.config import nearest

# Google Cloud's name of each chip, and how many units (cores or chips) the name counts per chip.
_ACCELERATORS = {"v4": ("v4", 2), "v5e": ("v5litepod", 1), "v5p": ("v5p", 2), "v6e": ("v6e", 1), "tpu7x": ("tpu7x", 2)}
# Shapes on offer: 2-D tori as listed; 3-D tori as listed, or with sides that are ascending multiples of 4.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SOLID = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")


def accelerator(topology: str) -> str:
    """Returns Google Cloud's name of a topology; some generations count cores instead of chips.

    >>> accelerator("v5e:4x4"), accelerator("v5p:4x4x4")
    ('v5litepod-16', 'v5p-128')
    """
    chip, sides = topology_shape(topology)
    name, cores = _ACCELERATORS[chip]
    return f"{name}-{cores * math.prod(sides)}"


def topology_shape(topology: str) -> tuple[str, list[int]]:
    """Returns the chip of a topology and the sides of its torus.

    Raises:
        ValueError: If the chip is unknown or not offered in this shape.

    >>> topology_shape("v5p:4x4x8")
    ('v5p', [4, 4, 8])
    """
    chip, _, shape = topology.partition(":")
    sides = [int(side) if side.isdecimal() else 0 for side in shape.split("x")]
    if chip not in _ACCELERATORS or not all(sides):
        known = ", ".join(_ACCELERATORS)
        raise ValueError(f"--topology={topology!r} is unknown; write {known} with a shape, like v5e:4x4")
    if chip in ("v5e", "v6e"):
        if shape not in _FLAT:
            raise ValueError(f"--topology={topology!r}: {chip} has no such shape; {nearest(shape, _FLAT)}")
    elif shape not in _SOLID and (len(sides) != 3 or any(side % 4 for side in sides) or sides != sorted(sides)):
        known = ", ".join(_SOLID)
        raise ValueError(
            f"--topology={topology!r}: {chip} has no such shape; give {known}, or three multiples of 4 in ascending "
            f"order, like 4x4x8"
        )
    return chip, sides
