"""Device that a program is traced for."""

from typing import Any

import jax


def gpus() -> int:
    """Returns the number of GPUs of the mesh in use, or 1 without a mesh if JAX runs on a GPU; 0 on other devices.

    While a program is traced, this is the device that it will be compiled for, also if that is not attached.

    >>> gpus() if jax.default_backend() == "cpu" else 0
    0
    """
    mesh: Any = jax.sharding.get_abstract_mesh()
    platform, count = (jax.default_backend(), 1) if mesh.empty else (mesh.abstract_device.platform, mesh.size)
    return count if platform in ("gpu", "cuda", "rocm") else 0
