"""The meta-gradient: how the loss after K inner steps moves with what shaped those steps.

Letters: K inner steps, M examples.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.errors import UserError
from mass_jax.metagrad import adjoints, inner, losses, products, reverse, tape, trees, validation
from mass_jax.metagrad.sweep import Cotangents, Sweep


class Aux(NamedTuple):
    """What a meta-gradient finds on its way.

    Attributes:
        params: adapted parameters, after K steps.
        losses_K: inner loss before each step.
        outer: what the outer loss returned beside its value; None without `has_aux`.
        alignment_KM: inner product of each example's gradient at step t with the cotangent of step t's inner gradient.
            Its sum over differentiated steps is dL_out/dw. None for `ReverseUnroll`, `MixedMode`, other inner losses.
    """

    params: Any
    losses_K: jax.Array
    outer: Any
    alignment_KM: jax.Array | None


class MetaGradient(NamedTuple):
    """Result of `meta_gradient`.

    Attributes:
        value: the outer loss at the adapted parameters.
        meta: its derivative in the meta-parameters, structured like them; leaves of integers get zeros.
        params: its derivative in the initial parameters, when asked for, else None.
        aux: see `Aux`.
    """

    value: jax.Array
    meta: Any
    params: Any
    aux: Aux


def meta_gradient(
    inner_loss: Callable[..., jax.Array],
    outer_loss: Callable[..., Any],
    params: Any,
    meta: Any,
    batch: Any,
    outer_batch: Any,
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

    It is itself a gradient: it works under `jax.jit` and `jax.vmap` (over tasks, say), and is not meant to be
    differentiated. Arrays that the losses close over (base weights) are constants.

    Args:
        inner_loss: function `(params, meta, batch) -> scalar`, or a `WeightedLoss`.
        outer_loss: function `(params, outer_batch) -> scalar`, or `-> (scalar, aux)` with `has_aux`.
        params: initial parameters, floating leaves.
        meta: meta-parameters, any tree; weights_M for a plain `WeightedLoss`.
        batch: data of the inner loss, any tree.
        outer_batch: data of the outer loss, any tree.
        optimizer: an optax optimizer, or a function of `meta` that returns one; then the derivative includes the way
            through its hyperparameters, also those that `optax.inject_hyperparams` keeps in the state. `MultiSteps`
            objects and pairs `(init, update)` count as optimizers; an update that needs the loss value is refused.
        num_steps: K, at least 1.
        adjoint: how to differentiate; see `adjoints`.
        batch_per_step: whether leaves of `batch` have a leading axis K, one slice a step; else all steps share it.
        has_aux: whether the outer loss returns `(scalar, aux)`.
        wrt_params: whether to differentiate in the initial parameters too (one more Hessian product).
        unused_meta: "error" refuses floating leaves of `meta` that neither the inner gradient nor the optimizer depends
            on, found by tracing; "zero" gives them a zero derivative.

    Returns:
        `MetaGradient(value, meta, params, aux)`.

    Raises:
        ValueError: a wrong argument, in one line that names it and the fix: parameters that are not floating, a loss
            that is not a scalar, an object that is not an optimizer, `WeightedMixedMode` without a `WeightedLoss`,
            `Truncated` with `wrt_params` (that derivative is cut off), a leaf of `meta` without use.

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
        raise UserError(f"adjoint={adjoint!r} is no adjoint; give an instance, such as MixedMode()")
    if unused_meta not in ("error", "zero"):
        raise UserError(f"unused_meta={unused_meta!r} is not one of 'error', 'zero'")
    params, meta = validation.parameters(params), validation.meta_parameters(meta)
    loop = inner.make_loop(inner_loss, optimizer, num_steps, batch_per_step, batch)
    if unused_meta == "error":
        _check_used(loop, params, meta, batch)

    def outer(params: Any) -> tuple[jax.Array, Any]:
        value = outer_loss(params, outer_batch)
        return validation.with_aux(value) if has_aux else (validation.scalar("outer_loss", value), None)

    if isinstance(adjoint, adjoints.ReverseUnroll):
        return _reverse(loop, outer, params, meta, batch, adjoint.remat, wrt_params)
    if wrt_params and isinstance(adjoint, adjoints.Truncated) and adjoint.steps < num_steps:
        raise UserError(f"{adjoint} cuts off the initial parameters of num_steps={num_steps}; use MixedMode()")
    return _swept(loop, outer, params, meta, batch, adjoint, wrt_params)


def _check_used(loop: inner.InnerLoop, params: Any, meta: Any, batch: Any) -> None:
    """Refuses leaves of `meta` that nothing depends on."""
    if isinstance(loop.loss, losses.WeightedLoss) and loop.loss.weights is None:
        return  # meta is the weights
    first = loop.at(batch, 0)

    def used(meta: Any) -> Any:
        if isinstance(loop.loss, losses.WeightedLoss):
            gradient = loop.loss.weights_of(meta, first)
        else:
            gradient = jax.grad(loop.loss)(params, meta, first)
        # Any gradient will do to see what the optimizer depends on.
        return gradient, loop.update(params, loop.start(params, meta), meta) if loop.meta_in_optimizer else ()

    validation.all_used(meta, used)


def _reverse(
    loop: inner.InnerLoop, outer: Callable[..., Any], params: Any, meta: Any, batch: Any, remat: str, wrt_params: bool
) -> MetaGradient:
    active, rest = trees.split(meta)

    def unrolled(active: Any, params: Any) -> tuple[jax.Array, Any]:
        adapted, losses_K = reverse.unroll(loop, params, trees.merge(active, rest), batch, remat)
        value, extra = outer(adapted)
        return value, Aux(adapted, losses_K, extra, None)

    argnums = (0, 1) if wrt_params else (0,)
    (value, aux), grads = jax.value_and_grad(unrolled, argnums, has_aux=True)(active, params)
    return MetaGradient(value, trees.fill_integers(grads[0], meta), grads[1] if wrt_params else None, aux)


def _rule(loss: Any, adjoint: adjoints.Adjoint) -> products.JointRule | products.WeightedRule:
    if isinstance(adjoint, adjoints.MixedMode):
        return products.JointRule(loss)
    if isinstance(adjoint, adjoints.WeightedMixedMode) and not isinstance(loss, losses.WeightedLoss):
        raise UserError(f"WeightedMixedMode needs inner_loss=WeightedLoss(...), not {loss!r}; or use MixedMode()")
    return products.rule_of(loss)


def _swept(
    loop: inner.InnerLoop,
    outer: Callable[..., Any],
    params: Any,
    meta: Any,
    batch: Any,
    adjoint: adjoints.Adjoint,
    wrt_params: bool,
) -> MetaGradient:
    rule = _rule(loop.loss, adjoint)
    remat = getattr(adjoint, "remat", "save_grads")
    hessian = not isinstance(adjoint, adjoints.FirstOrder)
    sweep = Sweep(loop, rule, meta, rule.prepare(meta, batch, loop.batch_per_step), hessian, remat != "step")
    skipped = max(0, loop.num_steps - adjoint.steps) if isinstance(adjoint, adjoints.Truncated) else 0
    make = tape.square_root if remat == "recursive" else tape.Whole
    taped = make(sweep, skipped, loop.num_steps - skipped)

    state, early, _ = sweep.forward(loop.start(params, meta), 0, skipped, store=False)
    state, late, record = taped.forward(state)
    (value, extra), grads = jax.value_and_grad(outer, has_aux=True)(state.params)
    cotangents, alignment_KM = taped.backward(sweep.after_last(grads, state), record, wrt_params)
    if skipped == 0 and (wrt_params or loop.meta_in_optimizer):
        cotangents = _pull_start(loop, params, meta, cotangents)
    meta_bar = rule.pull_meta(meta, batch, loop.batch_per_step, cotangents.meta, alignment_KM)
    aux = Aux(state.params, jnp.concatenate([early, late]), extra, alignment_KM)
    return MetaGradient(value, trees.fill_integers(meta_bar, meta), cotangents.params if wrt_params else None, aux)


def _pull_start(loop: inner.InnerLoop, params: Any, meta: Any, cotangents: Cotangents) -> Cotangents:
    """VJP of the optimizer's initialization: some states hold the parameters, or hyperparameters, from the start."""
    active, rest = trees.split(meta)

    def start(params: Any, active: Any) -> Any:
        return trees.split(loop.start(params, trees.merge(active, rest)).opt_state)[0]

    _, pull = jax.vjp(start, params, active)
    from_params, from_meta = pull(cotangents.opt_state)
    return Cotangents(trees.add(cotangents.params, from_params), (), trees.add(cotangents.meta, from_meta))
