"""A small adaptation problem with derivatives that can be checked: a tanh layer, adapted by LoRA or as a whole."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

# Compilation dominates these tests, and they do not depend on LLVM's optimizations.
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclasses.dataclass(frozen=True)
class Toy:
    """Losses and data; `lora` is an adapter with B = 0, `whole` is the layer itself."""

    examples: Callable[[Any, Any], jax.Array]
    outer: Callable[[Any, Any], jax.Array]
    lora: Any
    whole: Any
    weights: jax.Array
    batch: Any
    outer_batch: Any


@pytest.fixture
def toy(x64) -> Toy:
    return make(jax.random.key(0))


@pytest.fixture
def fast() -> Callable[..., Any]:
    """Returns a variant of `jax.jit` that compiles quickly."""
    return lambda function: jax.jit(function, compiler_options=FAST)


def make(key: jax.Array, width: int = 5, count: int = 4) -> Toy:
    keys = jax.random.split(key, 7)
    base = jax.random.normal(keys[0], (width, width))

    def examples(params: Any, batch: Any) -> jax.Array:
        kernel = params["w"] if "w" in params else base + params["a"] @ params["b"]
        error = jnp.tanh(batch["x"] @ kernel) - batch["y"]
        return jnp.mean(error**2, axis=(1, 2)) * batch["real"].astype(error.dtype)

    def data(x_key: jax.Array, y_key: jax.Array, count: int) -> Any:
        x, y = (jax.random.normal(k, (count, 3, width)) for k in (x_key, y_key))
        return {"x": x, "y": y, "real": jnp.ones(count, jnp.int32)}

    return Toy(
        examples,
        lambda params, batch: jnp.mean(examples(params, batch)),
        {"a": jax.random.normal(keys[1], (width, 2)), "b": jnp.zeros((2, width))},
        {"w": base},
        jax.random.uniform(keys[2], (count,)),
        data(keys[3], keys[4], count),
        data(keys[5], keys[6], 2),
    )
