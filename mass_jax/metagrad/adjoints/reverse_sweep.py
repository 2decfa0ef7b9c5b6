"""Meta-gradient by a forward pass that records the inner steps and a reverse sweep over them."""

from typing import Literal

import jax
import jax.numpy as jnp

from mass_jax.metagrad import trees
from mass_jax.metagrad.adjoints import stored, tape
from mass_jax.metagrad.adjoints.base import Aux, BilevelProblem, MetaGradient
from mass_jax.metagrad.adjoints.sweep import Cotangents, Sweep, no_record
from mass_jax.metagrad.derivatives import Derivatives
from mass_jax.metagrad.store import Store
from mass_jax.metagrad.trees import PyTree

SweepRemat = Literal["save_grads", "step", "recursive", "replay"]


def reverse_sweep(
    problem: BilevelProblem,
    derivatives: Derivatives,
    *,
    remat: SweepRemat = "save_grads",
    hessian: bool = True,
    steps: int | None = None,
    store: Store | None = None,
) -> MetaGradient:
    """Computes a meta-gradient by a reverse sweep; every adjoint except `ReverseUnroll` calls this.

    Args:
        problem: losses, parameters, and data.
        derivatives: derivatives of the inner loss.
        remat: what the forward pass stores, see `MixedMode`.
        hessian: whether to carry the adjoint across steps by Hessian products.
        steps: number of last steps to differentiate; None for all.
        store: where the states and gradients of the steps are kept; None keeps them on the device.

    Returns:
        The `MetaGradient`.

    Source: Kemaev et al. 2025 (MixFlow-MG, arXiv:2505.00793), equations 4 to 7.
    """
    loop, params, meta, batch = problem.loop, problem.params, problem.meta, problem.batch
    context = derivatives.prepare(meta, batch, loop.batch_per_step)
    sweep = Sweep(loop, derivatives, meta, context, hessian, remat != "step")
    skipped = 0 if steps is None else max(0, loop.num_steps - steps)
    recording = _tape(sweep, skipped, loop.num_steps - skipped, remat, store)

    state, losses = loop.start(params, meta), []
    if skipped:  # a loop of no steps would be traced and compiled like any other
        state, early_K, _ = sweep.forward(state, 0, skipped, no_record)
        losses.append(early_K)
    state, late_K, record = recording.forward(state)
    losses_K = jnp.concatenate([*losses, late_K])
    (value, outer_aux), grads = jax.value_and_grad(problem.outer_loss, has_aux=True)(state.params)
    cotangents, alignment_KM = recording.backward(sweep.after_last(grads, state), record, problem.wrt_params)
    if skipped == 0 and (problem.wrt_params or loop.meta_in_optimizer):
        cotangents = _pull_start(problem, cotangents)
    meta_bar = derivatives.pull_meta(meta, batch, loop.batch_per_step, cotangents.meta, alignment_KM)
    aux = Aux(state.params, losses_K, outer_aux, alignment_KM)
    params_bar = cotangents.params if problem.wrt_params else None
    return MetaGradient(value, trees.fill_integers(meta_bar, meta), params_bar, aux)


def _tape(sweep: Sweep, first: int, count: int, remat: SweepRemat, store: Store | None) -> tape.Tape:
    """Returns the tape of the steps first, ..., first + count - 1."""
    if store is not None:
        return stored.Stored(sweep, first, count, store)
    segments = {"recursive": tape.Segments, "replay": tape.Replayed}.get(remat)
    return tape.Full(sweep, first, count) if segments is None else tape.square_root(sweep, first, count, segments)


def _pull_start(problem: BilevelProblem, cotangents: Cotangents) -> Cotangents:
    """VJP of the optimizer's initialization: some states start from the parameters, or hold hyperparameters."""
    active, rest = trees.split(problem.meta)

    def start(params: PyTree, active: PyTree) -> PyTree:
        return trees.split(problem.loop.start(params, trees.merge(active, rest)).opt_state)[0]

    _, pull = jax.vjp(start, problem.params, active)
    from_params, from_meta = pull(cotangents.opt_state)
    return Cotangents(trees.add(cotangents.params, from_params), (), trees.add(cotangents.meta, from_meta))
