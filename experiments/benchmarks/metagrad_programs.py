"""Programs of the cases of `experiments.bench_metagrad`, and the arrays that they take.

Shape suffixes: N tasks, M examples, B outer rows, T tokens.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.metagrad_cases import PLAIN_JAX, Case, adjoint_of, rate_of
from mass_jax import metagrad as mg
from third_party.peers import plain_jax, problem

PEERS = {"torch-double-backward": "torch", "higher": "higher", "torchopt": "torchopt"}
"""PyTorch peers, with the package that each needs besides torch."""


def function_of(case: Case, size: problem.Size, tasks: int = 1) -> Callable[[problem.Data], jax.Array]:
    """Returns the gradient with respect to the example weights as a function of the arrays of the problem."""
    optimizer = mg.parse_optimizer(case.optimizer, rate_of(case.optimizer))
    one = functools.partial(_plain if case.adjoint == PLAIN_JAX else _gradient, case, size, optimizer)
    if tasks == 1:
        return one
    axes: Any = problem.Data(base=None, params=None, weights_M=0, tokens_MT=0, outer_BT=0)  # type: ignore[arg-type]
    return jax.vmap(one, in_axes=(axes,))


def _plain(case: Case, size: problem.Size, optimizer: Any, data: problem.Data) -> jax.Array:
    return plain_jax.weight_gradient(size, data, optimizer, case.num_steps)


def _gradient(case: Case, size: problem.Size, optimizer: Any, data: problem.Data) -> jax.Array:
    losses_of = problem.example_losses(size, data.base, case.remat, case.loss_chunk)
    return mg.meta_gradient(
        mg.WeightedLoss(losses_of, chunk=case.chunk, product_chunk=case.product_chunk),
        lambda params, outer_BT: jnp.mean(losses_of(params, outer_BT)),
        data.params,
        data.weights_M,
        data.tokens_MT,
        data.outer_BT,
        optimizer=optimizer,
        num_steps=case.num_steps,
        adjoint=adjoint_of(case),
    ).meta


def draw(key: jax.Array, size: problem.Size, dtype: str, tasks: int = 1) -> problem.Data:
    """Samples the arrays of a problem; those of examples have a leading axis N if there are several tasks."""
    if tasks == 1:
        return problem.draw(key, size, dtype)
    data = problem.draw(key, dataclasses.replace(size, examples=tasks * size.examples), dtype)
    outer = problem.draw(key, dataclasses.replace(size, outer_rows=tasks * size.outer_rows), dtype).outer_BT
    arrays = {"weights_M": data.weights_M * tasks, "tokens_MT": data.tokens_MT, "outer_BT": outer}
    split = {name: leaf.reshape(tasks, -1, *leaf.shape[1:]) for name, leaf in arrays.items()}
    return dataclasses.replace(data, **split)


def lower(case: Case, size: problem.Size, dtype: str, tasks: int = 1) -> jax.stages.Lowered:
    """Traces and lowers a case."""
    shapes = jax.eval_shape(lambda key: draw(key, size, dtype, tasks), jax.random.key(0))
    return jax.jit(function_of(case, size, tasks)).lower(shapes)
