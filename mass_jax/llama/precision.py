"""Which dtypes sums and softmaxes run in."""

import jax
import numpy as np


def wide(dtype: jax.typing.DTypeLike) -> np.dtype:
    """At least float32: narrow activations are summed in float32, float64 stays float64.

    >>> wide("bfloat16"), wide("float64")
    (dtype('float32'), dtype('float64'))
    """
    return np.promote_types(np.dtype(dtype), np.float32)
