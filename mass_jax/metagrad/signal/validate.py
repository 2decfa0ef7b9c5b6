"""Entry points: measure the effects of examples in one call, and summarize them.

Shape suffixes: N tasks, M examples per task.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.errors import UserError
from mass_jax.metagrad import inner
from mass_jax.metagrad.adjoints import Adjoint, WeightedMixedMode
from mass_jax.metagrad.losses import WeightedLoss
from mass_jax.metagrad.signal import effects as effects_of
from mass_jax.metagrad.signal.effects import Adaptation, Effects, Options, Tasks
from mass_jax.metagrad.signal.report import RESAMPLES, SignalReport, summarize
from mass_jax.metagrad.trees import PyTree

_effects = jax.jit(effects_of.effects, static_argnames=("adaptation", "options"))
_rewards = jax.jit(effects_of.rewards, static_argnames="adaptation")


def validate(
    inner_loss: WeightedLoss,
    outer_loss: Callable[..., jax.Array],
    params: PyTree,
    weights_NM: jax.Array,
    batch: PyTree,
    outer_batch: PyTree,
    *,
    optimizer: inner.Optimizer,
    num_steps: int,
    adjoint: Adjoint = WeightedMixedMode(),  # noqa: B008  frozen
    key: jax.Array | None = None,
    counted_NM: Any = None,
    useful_NM: Any = None,
    options: Options = Options(),  # noqa: B008  frozen
    resamples: int = RESAMPLES,
) -> SignalReport:
    r"""Compares the meta-gradient with the effects that it should predict.

    The reward of example i is :math:`r_i = -\partial L_{out} / \partial w_i`. It is compared with finite differences
    in the weights; with leave-one-out, :math:`L_{out}(w \setminus i) - L_{out}(w)`; and with add-one,
    :math:`L_{out}(0) - L_{out}(w_i e_i)`. An exact meta-gradient equals the first. It is useful if it also orders the
    examples like the second, since a reward is meant to tell which examples to write.

    Args:
        inner_loss: weighted loss of one task whose meta-parameters are the weights (`weights=None`).
        outer_loss: function `(params, outer_batch) -> scalar` of one task.
        params: initial parameters, such as fresh adapters; every leaf has a leading axis N.
        weights_NM: weight of each example.
        batch: data of the inner loss, leading axis N.
        outer_batch: data of the outer loss, leading axis N.
        optimizer: optax optimizer.
        num_steps: number of inner steps K.
        adjoint: method of computing the meta-gradient.
        key: random key of the directions in which the metasmoothness is measured; a fixed one by default.
        counted_NM: True for the examples that count, such as those that parsed; all by default.
        useful_NM: True for examples that the caller knows to be useful, for the AUCs.
        options: what to measure.
        resamples: number of bootstrap resamples of tasks.

    Returns:
        The `SignalReport`; pass it to `findings`.

    Raises:
        UserError: the weights are not a matrix, or the inner loss is not a plain `WeightedLoss`.

    Source: Engstrom et al. 2025 (arXiv:2503.13751), section 3, for the metasmoothness.

    >>> import optax
    >>> loss = WeightedLoss(lambda params, batch: (params - batch) ** 2)
    >>> report = validate(loss, lambda params, target: (params - target) ** 2, jnp.zeros(2), jnp.full((2, 3), 0.5),
    ...     jnp.array([[1.0, -1.0, 2.0], [0.0, 1.0, 3.0]]), jnp.ones(2), optimizer=optax.sgd(0.1), num_steps=1)
    >>> round(report["leave_one_out/spearman"], 2), round(report["metasmoothness"], 2)
    (1.0, 1.0)
    """
    if not isinstance(inner_loss, WeightedLoss) or inner_loss.weights is not None:
        raise UserError(f"inner_loss={inner_loss!r} must be a WeightedLoss without a weights function")
    if jnp.ndim(weights_NM) != 2:
        raise UserError(f"weights have shape {jnp.shape(weights_NM)}; give one row of weights per task")
    adaptation = Adaptation(lambda shared, hyper: (inner_loss, outer_loss, optimizer), num_steps, adjoint)
    tasks = Tasks(params, weights_NM, batch, outer_batch)
    found = measure(adaptation, (), (), tasks, key=key, options=options)
    return summarize(found, weights_NM, counted_NM=counted_NM, useful_NM=useful_NM, resamples=resamples)


def measure(
    adaptation: Adaptation,
    shared: PyTree,
    hyper: PyTree,
    tasks: Tasks,
    *,
    key: jax.Array | None = None,
    options: Options = Options(),  # noqa: B008  frozen
) -> Effects:
    """Measures the effects of examples; `validate` for a model whose weights are passed, not closed over.

    Args:
        adaptation: the inner loop; an equal one is not compiled again.
        shared: arrays common to all tasks, such as base weights.
        hyper: hyperparameters of the optimizer; other values do not compile again.
        tasks: the tasks.
        key: random key of the directions in which the metasmoothness is measured; a fixed one by default.
        options: what to measure. With `precision`, arrays must be addressable by this process.

    Returns:
        The `Effects`. Rewards with bfloat16 are None if most numbers of `shared` are in bfloat16 already, or none are
        floating-point.
    """
    key = jax.random.key(0) if key is None else key
    hyper = jax.tree.map(jnp.asarray, hyper)
    found = _effects(adaptation, options, shared, hyper, tasks, key)
    if not options.precision:
        return found
    low = None
    if _is_wider_than_bfloat16(shared):
        low = _rewards(adaptation, _cast(shared, jnp.bfloat16), hyper, tasks)
    with jax.enable_x64(True):
        wide = jax.tree.map(np.asarray, jax.device_get((shared, hyper, tasks)))
        high = np.asarray(_rewards(adaptation, *_cast(wide, jnp.float64)))
    return found._replace(rewards_bfloat16_NM=low, rewards_float64_NM=high)


def _is_wider_than_bfloat16(tree: PyTree) -> bool:
    """Returns whether most floating-point numbers of a tree have more than 16 bits."""
    floating = [leaf for leaf in jax.tree.leaves(tree) if _is_floating(leaf)]
    wide = sum(np.size(leaf) for leaf in floating if jax.dtypes.result_type(leaf).itemsize > 2)
    return 2 * wide > sum(map(np.size, floating))


def _is_floating(leaf: Any) -> bool:
    """Returns whether an array is floating-point."""
    return bool(jnp.issubdtype(jax.dtypes.result_type(leaf), jnp.floating))


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    """Casts the floating-point leaves of a tree."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype) if _is_floating(leaf) else leaf, tree)
