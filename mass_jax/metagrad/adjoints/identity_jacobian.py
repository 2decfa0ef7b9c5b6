r"""T1-T2 and SAMA: one product at one point, with the Jacobian of the inner loop replaced by the identity.

Shape suffixes: K inner steps, M examples.
"""

import dataclasses
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from mass_jax.errors import UserError
from mass_jax.metagrad import derivatives, trees
from mass_jax.metagrad.adjoints.base import Adjoint, Aux, BilevelProblem, MetaGradient
from mass_jax.metagrad.adjoints.sweep import Cotangents, StepRecord, Sweep, no_record
from mass_jax.metagrad.trees import PyTree

Point = Literal["last_step", "adapted"]


@dataclasses.dataclass(frozen=True)
class T1T2(Adjoint):
    r"""Biased: treats the adapted parameters as one SGD step on the inner loss.

    .. math:: \frac{dL_{out}}{d\eta} \approx -\alpha\, \nabla_\eta \nabla_\phi L_{in}(\phi, \eta)\,
        \nabla_\phi L_{out}(\phi_K)

    where :math:`\phi` is :math:`\phi_{K-1}` or :math:`\phi_K`. Memory: P + A, or nearly
    P + 2 A where a gradient outside the loop of steps gets buffers of its own. Time: K gradients, one outer gradient,
    and one JVP of about 1/2. Exact for SGD with this rate at K = 1.

    Attributes:
        rate: learning rate :math:`\alpha`, positive; it scales the result and does not change its direction.
        point: "last_step" evaluates the product at the parameters before the last step, "adapted" at those after it.

    Source: Luketina et al. 2016 (arXiv:1511.06727).

    >>> import jax.numpy as jnp, optax
    >>> from mass_jax import metagrad as mg
    >>> loss = mg.WeightedLoss(lambda params, batch: (params - batch) ** 2)
    >>> out = mg.meta_gradient(loss, lambda p, b: (p - b) ** 2, jnp.float32(0.0), jnp.ones(2), jnp.array([1.0, -1.0]),
    ...                        jnp.float32(1.0), optimizer=optax.sgd(0.25), num_steps=1, adjoint=mg.T1T2(rate=0.25))
    >>> out.meta.tolist()
    [-1.0, 1.0]
    """

    rate: float
    point: Point = "last_step"

    def __post_init__(self) -> None:
        _check_point(self.point)
        if not 0 < self.rate < math.inf:
            raise UserError(f"T1T2(rate={self.rate!r}) needs a positive, finite learning rate")

    def apply(self, problem: BilevelProblem) -> MetaGradient:
        """Computes one product of the inner gradient with the scaled outer gradient."""
        if problem.loop.meta_in_optimizer:
            raise UserError("T1T2 ignores how the optimizer depends on the meta-parameters; use SAMA() or MixedMode()")
        return _one_product(problem, self.point, self.rate)


@dataclasses.dataclass(frozen=True)
class SAMA(Adjoint):
    r"""Biased: as `T1T2`, with the derivative of the optimizer's update in place of the learning rate.

    .. math:: \frac{dL_{out}}{d\eta} \approx \nabla_\eta \nabla_\phi L_{in}(\phi, \eta)
        \Big(\frac{\partial \Upsilon}{\partial g}\Big)^{\!\top} \nabla_\phi L_{out}(\phi_K)

    The optimizer state is that at :math:`\phi`; its derivative is omitted. The paper approximates the product by a
    finite difference; here it is exact. At the last step, the result is that of `Truncated(1)`. Memory: as `T1T2`.
    Time: as `T1T2`, plus one gradient for an adaptive optimizer at the adapted parameters.

    Attributes:
        point: "adapted" evaluates everything at the parameters after the last step, as in the paper, "last_step" before
            it. With data per step, both use those of the last step.

    Source: Choe et al. 2023 (SAMA, arXiv:2310.05674), section 3.

    >>> import jax.numpy as jnp, optax
    >>> from mass_jax import metagrad as mg
    >>> loss = mg.WeightedLoss(lambda params, batch: (params - batch) ** 2)
    >>> out = mg.meta_gradient(loss, lambda p, b: (p - b) ** 2, jnp.float32(0.0), jnp.ones(2), jnp.array([1.0, 0.0]),
    ...                        jnp.float32(1.0), optimizer=optax.sgd(0.25), num_steps=1, adjoint=mg.SAMA())
    >>> out.meta.tolist()
    [-0.25, 0.25]
    """

    point: Point = "adapted"

    def __post_init__(self) -> None:
        _check_point(self.point)

    def apply(self, problem: BilevelProblem) -> MetaGradient:
        """Computes one product of the inner gradient with the preconditioned outer gradient."""
        return _one_product(problem, self.point, None)


def _check_point(point: str) -> None:
    """Raises a UserError unless `point` is known."""
    if point not in get_args(Point):
        raise UserError(f"point={point!r} is not one of {', '.join(map(repr, get_args(Point)))}")


def _one_product(problem: BilevelProblem, point: Point, rate: float | None) -> MetaGradient:
    """Runs the inner loop and moves the outer gradient through one inner gradient; `rate` replaces the optimizer."""
    loop, meta, batch = problem.loop, problem.meta, problem.batch
    if problem.wrt_params:
        raise UserError("an identity Jacobian says nothing about the initial parameters; use MixedMode()")
    loss = derivatives.derivatives_of(loop.loss)
    context = loss.prepare(meta, batch, loop.batch_per_step)
    sweep = Sweep(loop, loss, meta, context, hessian=False, save_grads=True)
    last = loop.num_steps - 1
    record, adapted, losses_K = _run(sweep, problem.params, point)
    (value, outer_aux), grads = jax.value_and_grad(problem.outer_loss, has_aux=True)(adapted)
    cotangents = sweep.after_last(grads, record.state)
    if rate is None:
        cotangents, alignment_M = sweep.step_back(cotangents, record, last, hessian=False)
    else:
        direction = jax.tree.map(lambda leaf: -rate * leaf, grads)
        product = loss.products(record.state.params, meta, loop.at(context, last), direction, hessian=False)
        if product.meta is not None:
            cotangents = Cotangents(cotangents.params, cotangents.opt_state, product.meta)
        alignment_M = product.alignment_M
    alignment_KM = jax.tree.map(lambda leaf: leaf[None], alignment_M)
    meta_bar = loss.pull_meta(meta, batch, loop.batch_per_step, cotangents.meta, alignment_KM)
    return MetaGradient(value, trees.fill_integers(meta_bar, meta), None, Aux(adapted, losses_K, outer_aux, None))


def _run(sweep: Sweep, params: PyTree, point: Point) -> tuple[StepRecord, PyTree, jax.Array]:
    """Runs all steps; returns state and gradient at the point of the product, the adapted parameters, and losses_K."""
    loop, last = sweep.loop, sweep.loop.num_steps - 1
    state, losses = loop.start(params, sweep.meta), []
    whole = last if point == "last_step" else loop.num_steps
    if whole:
        state, early_K, _ = sweep.forward(state, 0, whole, no_record)
        losses.append(early_K)
    value, grads = sweep.derivatives.gradient(state.params, sweep.meta, loop.at(sweep.context, last))
    record = sweep.record(state, grads)
    if point == "last_step":
        state = loop.update(grads, state, sweep.meta)
        losses.append(value[None])
    return record, state.params, jnp.concatenate(losses)
