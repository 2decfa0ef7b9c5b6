"""Meta-gradients: derivatives of an outer loss through K steps of an inner optimizer.

Shape suffixes: K inner steps, M examples.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax

from mass_jax.errors import UserError
from mass_jax.metagrad import adjoints, inner, losses, validation
from mass_jax.metagrad.adjoints import MetaGradient
from mass_jax.metagrad.trees import PyTree


def meta_gradient(
    inner_loss: Callable[..., jax.Array],
    outer_loss: Callable[..., Any],
    params: PyTree,
    meta: PyTree,
    batch: PyTree,
    outer_batch: PyTree,
    *,
    optimizer: inner.Optimizer,
    num_steps: int,
    adjoint: adjoints.Adjoint = adjoints.MixedMode(),  # noqa: B008  frozen
    batch_per_step: bool = False,
    has_aux: bool = False,
    wrt_params: bool = False,
    unused_meta: Literal["error", "zero"] = "error",
) -> MetaGradient:
    r"""Differentiates an outer loss through K steps of an optax optimizer.

    .. math:: \frac{d}{d\eta} L_{out}(\phi_K), \qquad
        (\phi_{t+1}, u_{t+1}) = \Upsilon(\nabla_\phi L_{in}(\phi_t, \eta; b_t), \phi_t, u_t; \eta)

    The function composes with `jax.jit` and `jax.vmap`, for example over problems. It is not meant to be
    differentiated again. Arrays that the losses close over, such as base weights, are constants.

    Args:
        inner_loss: function `(params, meta, batch) -> scalar`, or a `WeightedLoss`.
        outer_loss: function `(params, outer_batch) -> scalar`, or `-> (scalar, aux)` with `has_aux`.
        params: initial parameters; all leaves are floating-point.
        meta: meta-parameters, any pytree; weights_M for a plain `WeightedLoss`.
        batch: data of the inner loss, any pytree.
        outer_batch: data of the outer loss, any pytree.
        optimizer: optax optimizer, or a function of `meta` that returns one. The derivative then includes the path
            through its hyperparameters, even those that `optax.inject_hyperparams` keeps in the state. `MultiSteps`
            objects and pairs `(init, update)` are accepted; an update that needs the loss value is rejected.
        num_steps: number of inner steps K, at least 1.
        adjoint: method of differentiation; see `Adjoint`.
        batch_per_step: whether leaves of `batch` have a leading axis K with one slice per step; otherwise all steps
            share the batch.
        has_aux: whether the outer loss returns `(scalar, aux)`.
        wrt_params: whether to also differentiate with respect to the initial parameters (one more Hessian product).
        unused_meta: "error" rejects floating-point leaves of `meta` that neither the inner gradient nor the optimizer
            depends on, as found by tracing; "zero" gives them a zero derivative.

    Returns:
        `MetaGradient(value, meta, params, aux)`.

    Raises:
        UserError: an argument is invalid: parameters that are not floating-point, a loss that is not a scalar, an
            object that is not an optimizer, `WeightedMixedMode` without a `WeightedLoss`, `Truncated` with
            `wrt_params`, or an unused leaf of `meta`. The message names the argument and the fix.

    Source: Kemaev et al. 2025 (MixFlow-MG, arXiv:2505.00793), equations 4 to 7; Kaya and Rui 2026 (MASS), section 2.3.

    >>> import jax.numpy as jnp, optax
    >>> from mass_jax.metagrad import WeightedLoss, WeightedMixedMode
    >>> inner_loss = WeightedLoss(lambda params, batch: (params - batch) ** 2)
    >>> outer_loss = lambda params, batch: (params - batch) ** 2
    >>> out = meta_gradient(inner_loss, outer_loss, jnp.float32(0.0), jnp.ones(2), jnp.array([1.0, -1.0]),
    ...                     jnp.float32(1.0), optimizer=optax.sgd(0.25), num_steps=1, adjoint=WeightedMixedMode())
    >>> out.value.tolist(), out.meta.tolist()
    (1.0, [-1.0, 1.0])
    """
    if not isinstance(adjoint, adjoints.Adjoint):
        raise UserError(f"adjoint={adjoint!r} is not an adjoint; pass an instance, such as MixedMode()")
    if unused_meta not in ("error", "zero"):
        raise UserError(f"unused_meta={unused_meta!r} is not one of 'error', 'zero'")
    params, meta = validation.parameters(params), validation.meta_parameters(meta)
    loop = inner.make_loop(inner_loss, optimizer, num_steps, batch_per_step, batch)
    if unused_meta == "error":
        _check_used(loop, params, meta, batch)

    def outer(params: PyTree) -> tuple[jax.Array, Any]:
        value = outer_loss(params, outer_batch)
        return validation.with_aux(value) if has_aux else (validation.scalar("outer_loss", value), None)

    result = adjoint.apply(adjoints.BilevelProblem(loop, outer, params, meta, batch, wrt_params))
    validation.same_shapes(f"the meta-gradient of {adjoint}", result.meta, "meta", meta)
    if wrt_params:
        validation.same_shapes(f"the params gradient of {adjoint}", result.params, "params", params)
    return result


def _check_used(loop: inner.InnerLoop, params: PyTree, meta: PyTree, batch: PyTree) -> None:
    """Raises a UserError if neither the inner gradient nor the optimizer depends on some leaf of `meta`."""
    if isinstance(loop.loss, losses.WeightedLoss) and loop.loss.weights is None:
        return  # meta is the weights
    first = loop.at(batch, 0)

    def used(meta: PyTree) -> PyTree:
        if isinstance(loop.loss, losses.WeightedLoss):
            gradient = loop.loss.weights_of(meta, first)
        else:
            gradient = jax.grad(loop.loss)(params, meta, first)
        # Any gradient shows what the optimizer depends on; the parameters have the right shapes.
        return gradient, loop.update(params, loop.start(params, meta), meta) if loop.meta_in_optimizer else ()

    validation.all_used(meta, used)
