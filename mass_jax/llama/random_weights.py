"""Random parameters of an architecture, drawn on the devices in their final data type and placement."""

import functools
import math
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from mass_jax.llama.config import LlamaConfig
from mass_jax.llama.model import Llama
from mass_jax.types import PyTree

_MOST_PIECES = 64  # of a leaf, drawn one after the other, so that random bits take little memory


def draw(
    config: LlamaConfig,
    key: jax.Array,
    dtype: jax.typing.DTypeLike = jnp.float32,
    shardings: PyTree | None = None,
) -> dict[str, Any]:
    """Draws parameters from the distribution of fresh ones: normal kernels and embeddings, norms of 1, biases of 0.

    Unlike `Llama.init`, it never holds float32 copies, so a model can be drawn that fills most of the memory in
    bfloat16. The values differ from those of `Llama.init`.

    Args:
        config: the architecture.
        key: random key.
        dtype: dtype of the parameters.
        shardings: a tree of shardings, structured like the parameters; None places all on the default device.

    Returns:
        The "params" collection of `Llama`, with blocks stacked [L, ...].

    >>> config = LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=2, num_attention_heads=2,
    ...                      intermediate_size=8)
    >>> params = draw(config, jax.random.key(0), "bfloat16")
    >>> params["layers"]["mlp"]["up_proj"]["kernel"].shape, params["norm"]["weight"].tolist()
    ((2, 4, 8), [1.0, 1.0, 1.0, 1.0])
    """
    leaves, structure = jax.tree.flatten(shardings)
    return _compiled_draw(config, jnp.dtype(dtype), structure, tuple(leaves))(key)


@functools.cache
def _compiled_draw(config: LlamaConfig, dtype: Any, structure: Any, leaves: tuple[Any, ...]) -> Any:
    """Returns the jitted draw with the placement that the flattened tree of shardings describes."""
    return jax.jit(functools.partial(_draw, config, dtype), out_shardings=jax.tree.unflatten(structure, leaves))


def _draw(config: LlamaConfig, dtype: Any, key: jax.Array) -> dict[str, Any]:
    """Returns the parameters in one traced computation."""
    tokens_BT = jnp.zeros((1, 2), jnp.int32)
    shapes = flax.traverse_util.flatten_dict(jax.eval_shape(Llama(config).init, key, tokens_BT)["params"])
    return flax.traverse_util.unflatten_dict(
        {
            path: _leaf(path[-1], leaf.shape, dtype, config.initializer_range, jax.random.fold_in(key, number))
            for number, (path, leaf) in enumerate(sorted(shapes.items()))
        }
    )


def _leaf(name: str, shape: tuple[int, ...], dtype: Any, deviation: float, key: jax.Array) -> jax.Array:
    """Returns one leaf."""
    if name in ("weight", "bias"):
        return jnp.full(shape, 1 if name == "weight" else 0, dtype)
    pieces = math.gcd(shape[0], _MOST_PIECES)

    def piece(key: jax.Array) -> jax.Array:
        values = jax.random.normal(key, (shape[0] // pieces, *shape[1:]), jnp.float32)
        return (deviation * values).astype(dtype)

    return jax.lax.map(piece, jax.random.split(key, pieces)).reshape(shape)
