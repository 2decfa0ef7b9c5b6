"""Reader for safetensors files that loads one tensor, or a slice of one, at a time.

The format is a length, a JSON header and raw little-endian bytes. The library's reader is not used because it maps the
file into memory, and the mapped pages count as memory of the process: loading a model would take its size twice.
"""

import json
import math
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from mass_jax.errors import UserError

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}


class SafeFile:
    """A complete safetensors file with a valid header.

    Attributes:
        path: path of the file.
        shapes: shape of each tensor.

    Raises:
        UserError: the file is truncated, is not a safetensors file, or has an unsupported dtype.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise UserError(f"{path} is truncated or not a safetensors file: download it again")
            header = file.read(length)
        try:
            self._tensors: dict[str, Any] = json.loads(header)
            self._tensors.pop("__metadata__", None)
            self.shapes = {name: _shape(tensor) for name, tensor in self._tensors.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise UserError(f"{path} has a damaged header: download it again") from None
        self._start = 8 + length
        for name in self._tensors:
            self._check(name, size)

    def _check(self, name: str, size: int) -> None:
        tensor = self._tensors[name]
        if tensor["dtype"] not in _DTYPES:
            raise UserError(f"{name} is stored as {tensor['dtype']}: only {', '.join(_DTYPES)} are supported")
        begin, end = tensor["data_offsets"]
        if begin < 0 or end - begin != math.prod(self.shapes[name]) * _DTYPES[tensor["dtype"]].itemsize:
            raise UserError(f"{self.path}: the offsets of {name} contradict its shape: download it again")
        if self._start + end > size:
            raise UserError(f"{self.path} is truncated within {name}: download it again")

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a slice of a tensor; only the rows that it spans are read from the file.

        Args:
            name: name of the tensor.
            index: one slice per axis.

        Returns:
            The values in their stored dtype.
        """
        tensor, dtype = self._tensors[name], _DTYPES[self._tensors[name]["dtype"]]
        first, last, stride = index[0].indices(tensor["shape"][0])
        row = math.prod(tensor["shape"][1:])
        offset = self._start + tensor["data_offsets"][0] + first * row * dtype.itemsize
        values = np.fromfile(self.path, dtype, (last - first) * row, offset=offset)
        return values.reshape(last - first, *tensor["shape"][1:])[(slice(None, None, stride), *index[1:])]


def _shape(tensor: Any) -> tuple[int, ...]:
    """Returns the shape of a header entry, after checking the entry's types."""
    begin, end = tensor["data_offsets"]
    numbers = (*tensor["shape"], begin, end)
    if not isinstance(tensor["dtype"], str) or not all(type(n) is int and n >= 0 for n in numbers):
        raise TypeError("a header entry must have a dtype, a shape and two offsets")
    return tuple(tensor["shape"])
