"""Reading a safetensors file a tensor, or a slice of one, at a time.

The format is a length, a JSON header and raw little-endian bytes. It is read here and not through the library's
memory map, whose touched pages stay counted as this process's memory: loading a model would then take it twice.
"""

import json
import math
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}


class SafeFile:
    """An opened file whose header is right and whose bytes are all there.

    Attributes:
      shapes: shape of each tensor.

    Raises:
      ValueError: the file is cut short or no safetensors file.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise ValueError(f"{path} is cut short or no safetensors file: download it again")
            header = file.read(length)
        try:
            self._tensors: dict[str, Any] = json.loads(header)
        except ValueError:
            raise ValueError(f"{path} has a damaged header: download it again") from None
        self._tensors.pop("__metadata__", None)
        self._start = 8 + length
        self.shapes = {name: tuple(tensor["shape"]) for name, tensor in self._tensors.items()}
        for name in self._tensors:
            self._check(name, size)

    def _check(self, name: str, size: int) -> None:
        tensor = self._tensors[name]
        if tensor["dtype"] not in _DTYPES:
            raise ValueError(f"{name} is stored as {tensor['dtype']}: only {', '.join(_DTYPES)} weights load")
        begin, end = tensor["data_offsets"]
        if end - begin != math.prod(tensor["shape"]) * _DTYPES[tensor["dtype"]].itemsize:
            raise ValueError(f"{self._path} says contradictory things of {name}: download it again")
        if self._start + end > size:
            raise ValueError(f"{self._path} is cut short within {name}: download it again")

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A slice of a tensor; only the rows it spans are read."""
        tensor, dtype = self._tensors[name], _DTYPES[self._tensors[name]["dtype"]]
        first, last, stride = index[0].indices(tensor["shape"][0])
        row = math.prod(tensor["shape"][1:])
        offset = self._start + tensor["data_offsets"][0] + first * row * dtype.itemsize
        values = np.fromfile(self._path, dtype, (last - first) * row, offset=offset)
        return values.reshape(last - first, *tensor["shape"][1:])[(slice(None, None, stride), *index[1:])]
