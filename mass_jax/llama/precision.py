"""Precision of sums and softmaxes."""

import jax
import numpy as np


def wide(dtype: jax.typing.DTypeLike) -> np.dtype:
    """Returns the dtype for sums over values of a dtype: float32 for narrower ones, float64 for float64.

    >>> wide("bfloat16"), wide("float64")
    (dtype('float32'), dtype('float64'))
    """
    return np.promote_types(np.dtype(dtype), np.float32)
