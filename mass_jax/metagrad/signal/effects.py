"""Measured effects of examples: what happens to the outer loss if a weight changes, and the meta-gradient beside it.

Shape suffixes: N tasks, M examples per task, D random directions, E evaluations.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.metagrad import inner, meta
from mass_jax.metagrad.adjoints import Adjoint, EvolutionStrategies
from mass_jax.metagrad.losses import WeightedLoss
from mass_jax.metagrad.trees import PyTree

Array = jax.Array | np.ndarray
"""An array on a device or on the host."""

Build = Callable[[PyTree, PyTree], tuple[WeightedLoss, Callable[..., jax.Array], inner.Optimizer]]
"""Function `(shared, hyper) -> (inner_loss, outer_loss, optimizer)`; see `Adaptation`."""


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """An inner loop whose signal is measured; hashable, so that equal ones are compiled once.

    Attributes:
        build: function `(shared, hyper) -> (inner_loss, outer_loss, optimizer)`. `shared` are arrays common to all
            tasks, such as base weights, which the check of bfloat16 casts. `hyper` are hyperparameters of the
            optimizer, such as its learning rate; another value does not compile again.
        num_steps: number of inner steps K.
        adjoint: method of computing the meta-gradient.
        tasks_at_a_time: number of tasks that are batched by `jax.vmap`, one batch after another; 0 is all of them.
    """

    build: Build
    num_steps: int
    adjoint: Adjoint
    tasks_at_a_time: int = 0

    def over_tasks(self, function: Callable[..., PyTree], *trees: PyTree) -> PyTree:
        """Applies a function to each task; leaves of the arguments and of the results have the leading axis N."""
        if not self.tasks_at_a_time:
            return jax.vmap(function)(*trees)
        return jax.lax.map(lambda task: function(*task), trees, batch_size=self.tasks_at_a_time)


class Tasks(NamedTuple):
    """Tasks on which the signal is measured; every leaf has the leading axis N.

    Attributes:
        params: initial parameters, such as fresh adapters.
        weights_NM: weight of each example.
        batch: data of the inner loss.
        outer_batch: data of the outer loss.
    """

    params: PyTree
    weights_NM: jax.Array
    batch: PyTree
    outer_batch: PyTree


@dataclasses.dataclass(frozen=True)
class Options:
    """Effects to measure.

    Attributes:
        finite_differences: whether to measure central differences in each weight.
        add_one: whether to measure each example alone.
        directions: number of random directions for the metasmoothness; 0 skips it.
        difference: step of the finite differences, relative to the greatest weight of the task.
        perturbation: step of the metasmoothness, relative to each weight.
        precision: whether to repeat the meta-gradient in float64 and with `shared` in bfloat16.
    """

    finite_differences: bool = True
    add_one: bool = True
    directions: int = 4
    difference: float = 0.02
    perturbation: float = 0.1
    precision: bool = True


class Effects(NamedTuple):
    """Meta-gradient and measured effects; positive numbers mean that an example lowers the outer loss.

    Attributes:
        before_N: outer loss with all weights 0.
        after_N: outer loss at the given weights.
        rewards_NM: the negative meta-gradient.
        leave_one_out_NM: outer loss without example i, minus that with all examples.
        add_one_NM: outer loss with all weights 0, minus that with example i alone; None if not measured.
        finite_difference_NM: negative central difference in each weight; None if not measured.
        metasmoothness_ND: empirical metasmoothness along each direction; None if not measured.
        rewards_float64_NM: the negative meta-gradient in float64; None if not measured.
        rewards_bfloat16_NM: the negative meta-gradient with `shared` in bfloat16; None if not measured.
    """

    before_N: Array
    after_N: Array
    rewards_NM: Array
    leave_one_out_NM: Array
    add_one_NM: Array | None = None
    finite_difference_NM: Array | None = None
    metasmoothness_ND: Array | None = None
    rewards_float64_NM: Array | None = None
    rewards_bfloat16_NM: Array | None = None


def rewards(
    adaptation: Adaptation, shared: PyTree, hyper: PyTree, tasks: Tasks, keys_N: jax.Array | None = None
) -> jax.Array:
    """Returns the negative meta-gradient with respect to the weights, shape [N, M].

    Args:
        adaptation: the inner loop; static under jit.
        shared: arrays common to all tasks.
        hyper: hyperparameters of the optimizer.
        tasks: the tasks.
        keys_N: one random key per task, for evolution strategies; None gives all tasks the same noise.
    """
    inner_loss, outer_loss, optimizer = adaptation.build(shared, hyper)

    def one(task: Tasks, key: jax.Array | None) -> jax.Array:
        adjoint = adaptation.adjoint
        if key is not None and isinstance(adjoint, EvolutionStrategies):
            adjoint = dataclasses.replace(adjoint, key=key)
        return meta.meta_gradient(
            inner_loss,
            outer_loss,
            *task,
            optimizer=optimizer,
            num_steps=adaptation.num_steps,
            adjoint=adjoint,
        ).meta

    return -adaptation.over_tasks(one, tasks, keys_N)


def losses(adaptation: Adaptation, shared: PyTree, hyper: PyTree, tasks: Tasks) -> jax.Array:
    """Returns the outer loss of each task after adaptation with its weights, shape [N]; arguments as for `rewards`."""
    inner_loss, outer_loss, optimizer = adaptation.build(shared, hyper)

    def one(params: PyTree, weights_M: jax.Array, batch: PyTree, outer_batch: PyTree) -> jax.Array:
        adapted = inner.adapt(inner_loss, params, weights_M, batch, optimizer=optimizer, num_steps=adaptation.num_steps)
        return outer_loss(adapted.params, outer_batch)

    return adaptation.over_tasks(one, *tasks)


def effects(
    adaptation: Adaptation, options: Options, shared: PyTree, hyper: PyTree, tasks: Tasks, key: jax.Array
) -> Effects:
    r"""Measures the effects of examples on the outer loss of each task.

    Tasks are batched as `adaptation` says; changes of the weights run one after another, so that memory does not grow
    with the number of examples.

    Args:
        adaptation: the inner loop; static under jit.
        options: what to measure; static under jit.
        shared: arrays common to all tasks.
        hyper: hyperparameters of the optimizer.
        tasks: the tasks.
        key: random key of the directions.

    Returns:
        The `Effects` without those of other precisions.
    """
    inner_loss, _, optimizer = adaptation.build(shared, hyper)

    def adapt(params: PyTree, weights_M: jax.Array, batch: PyTree) -> PyTree:
        return inner.adapt(
            inner_loss, params, weights_M, batch, optimizer=optimizer, num_steps=adaptation.num_steps
        ).params

    def losses_at(weights_NM: jax.Array) -> jax.Array:
        return losses(adaptation, shared, hyper, tasks._replace(weights_NM=weights_NM))

    def adapt_all(weights_NM: jax.Array) -> PyTree:
        return adaptation.over_tasks(adapt, tasks.params, weights_NM, tasks.batch)

    return Effects(
        rewards_NM=rewards(adaptation, shared, hyper, tasks),
        metasmoothness_ND=_metasmoothness(adapt_all, tasks.weights_NM, key, options) if options.directions else None,
        **_changes(losses_at, tasks.weights_NM, options),
    )


def _changes(losses: Callable[[jax.Array], jax.Array], weights_NM: jax.Array, options: Options) -> dict[str, jax.Array]:
    """Evaluates the losses [N] of changed weights, one change at a time; returns fields of `Effects`."""
    eye_M1M = jnp.eye(weights_NM.shape[1], dtype=weights_NM.dtype)[:, None, :]
    greatest_N1 = weights_NM.max(-1, keepdims=True)
    step_N1 = options.difference * jnp.where(greatest_N1 > 0, greatest_N1, 1)
    changed_ENM = {
        "with": weights_NM[None],
        "zero": jnp.zeros_like(weights_NM)[None],
        "without": weights_NM * (1 - eye_M1M),
    }
    if options.add_one:
        changed_ENM["alone"] = weights_NM * eye_M1M
    if options.finite_differences:
        changed_ENM |= {"more": weights_NM + step_N1 * eye_M1M, "less": weights_NM - step_N1 * eye_M1M}
    losses_EN = jax.lax.map(losses, jnp.concatenate(list(changed_ENM.values())))
    found, first = {}, 0
    for name, group in changed_ENM.items():
        found[name] = losses_EN[first : first + len(group)].T
        first += len(group)
    fields = {
        "before_N": found["zero"][:, 0],
        "after_N": found["with"][:, 0],
        "leave_one_out_NM": found["without"] - found["with"],
    }
    if options.add_one:
        fields["add_one_NM"] = found["zero"] - found["alone"]
    if options.finite_differences:
        fields["finite_difference_NM"] = (found["less"] - found["more"]) / (2 * step_N1)
    return fields


def _metasmoothness(
    adapt_all: Callable[[jax.Array], PyTree], weights_NM: jax.Array, key: jax.Array, options: Options
) -> jax.Array:
    r"""Empirical metasmoothness of the inner loop along random directions v of the weights, shape [N, D].

    .. math:: \hat S = \mathrm{sign}(\theta_1 - \theta_0)^\top \mathrm{diag}(d / \|d\|_1)\,
        \mathrm{sign}(\theta_2 - \theta_1), \quad d = |\theta_2 - \theta_0|

    where theta_k are the adapted parameters with the weights w (1 + k h v). It is 1 if they move linearly.

    Source: Engstrom et al. 2025 (arXiv:2503.13751), definition 2.
    """

    def along(direction_NM: jax.Array) -> jax.Array:
        first, second, third = (
            adapt_all(weights_NM * (1 + k * options.perturbation * direction_NM)) for k in (0, 1, 2)
        )

        def sums(a: jax.Array, b: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
            moved, agree = jnp.abs(c - a), jnp.sign(b - a) * jnp.sign(c - b)
            axes = tuple(range(1, a.ndim))
            return (moved * agree).sum(axes), moved.sum(axes)

        leaves = zip(*(jax.tree.leaves(tree) for tree in (first, second, third)), strict=True)
        agreed, moved = (sum(parts) for parts in zip(*(sums(*leaf) for leaf in leaves), strict=True))
        return jnp.where(moved > 0, agreed / jnp.where(moved > 0, moved, 1), jnp.nan)

    directions_DNM = jax.random.normal(key, (options.directions, *weights_NM.shape), weights_NM.dtype)
    return jax.lax.map(along, directions_DNM).T
