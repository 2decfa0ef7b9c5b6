"""Linear layer with an optional low-rank adapter."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mass_jax.llama.half_product import half_product
from mass_jax.llama.joint_projection import JointProjection
from mass_jax.llama.low_rank import times_b

LORA = "lora"  # collection of the adapter
ROWS = "rows"  # kernel of a projection as [out, in], in place of "kernel", in parameters for decoding


class AdaptedDense(nn.Module):
    """Linear layer with an optional adapter: x W (+ bias) (+ x A B, if the "lora" collection has A and B here).

    The low-rank path runs in the adapter's dtype, so a float32 adapter on bfloat16 weights has float32 gradients. With
    `half_adapter`, its products have bfloat16 operands and float32 sums: bfloat16 activations are used as they are, and
    the adapter is split into two bfloat16 terms. Gradients remain float32.

    Attributes:
        use_bias: whether to add a bias.
        init_range: standard deviation of the initial kernel.
        half: whether products round their operands to bfloat16; see `half_product`.
        features: output features.
        half_adapter: whether products with the adapter have bfloat16 operands; for bfloat16 activations.
    """

    use_bias: bool
    init_range: float
    half: bool
    features: int
    half_adapter: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.has_variable("params", ROWS):
            rows: Any = self.get_variable("params", ROWS)
            y = rows(x) if isinstance(rows, JointProjection) else times_rows(x, rows, self.half)
        else:
            init = nn.initializers.normal(self.init_range)
            kernel = self.param("kernel", init, (x.shape[-1], self.features), param_dtype())
            y = half_product(x, kernel) if self.half else x @ kernel.astype(x.dtype)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,), param_dtype()).astype(x.dtype)
        if self.has_variable(LORA, "a"):
            a: jax.Array = self.get_variable(LORA, "a")
            b: jax.Array = self.get_variable(LORA, "b")
            half = self.half or self.half_adapter
            if half:
                sums = jnp.bfloat16 if y.dtype == jnp.bfloat16 else jnp.float32
                split = not self.half
                low = half_product(half_product(x, a, split=split), b, dtype=sums, split=split)
            else:
                low = times_b(x.astype(a.dtype) @ a, b)
            y += low.astype(y.dtype)
        return y


def times_rows(x: jax.Array, rows_FD: jax.Array, half: bool = False) -> jax.Array:
    """Multiplies [..., D] by the transpose of [F, D]; fast for few tokens, since weights are the left operand.

    With `half`, both operands are rounded to bfloat16, in their own order; see `half_product`.
    """
    if half:
        return half_product(x, rows_FD, transposed=True)
    product = jax.lax.dot_general(rows_FD.astype(x.dtype), x, (((1,), (x.ndim - 1,)), ((), ())))
    return jnp.moveaxis(product, 0, -1)


def param_dtype() -> Any:
    """Returns the dtype of new parameters: float32, or float64 under `jax.enable_x64`."""
    return jax.dtypes.canonicalize_dtype(float)
