"""Mixed mode for inner losses that are linear in per-example weights."""

import dataclasses

from mass_jax.errors import UserError
from mass_jax.metagrad import derivatives, losses
from mass_jax.metagrad.adjoints.base import Adjoint, BilevelProblem, MetaGradient, check_remat, check_store, described
from mass_jax.metagrad.adjoints.reverse_sweep import SweepRemat, reverse_sweep
from mass_jax.metagrad.store import Store


@dataclasses.dataclass(frozen=True)
class WeightedMixedMode(Adjoint):
    r"""Exact for a `WeightedLoss`: one JVP of the example losses per step and K - 1 Hessian products in all.

    .. math:: \frac{dL_{out}}{dw_i} = \sum_{t=0}^{K-1} \langle \nabla \ell_i(\phi_t), \bar g_t \rangle

    where :math:`\bar g_t` is the cotangent of step t's inner gradient. Memory: as `MixedMode`; for K = 1, which needs
    no Hessian product, that of one forward pass. Time: K gradients, one outer gradient, K - 1 products of about 2 to 3,
    and K JVPs of about 1/2.

    Attributes:
        remat: as for `MixedMode`.
        store: as for `MixedMode`.

    Source: Kemaev et al. 2025 (MixFlow-MG, arXiv:2505.00793), specialized to Kaya and Rui 2026 (MASS), section 2.3,
    sensitivity to an example's score.
    """

    remat: SweepRemat = "save_grads"
    store: Store | None = None

    def __post_init__(self) -> None:
        check_remat(self.remat, SweepRemat)
        check_store(self.store, self.remat)

    def __repr__(self) -> str:
        return described(self)

    def apply(self, problem: BilevelProblem) -> MetaGradient:
        """Runs the reverse sweep with JVPs of the example losses."""
        loss = problem.loop.loss
        if not isinstance(loss, losses.WeightedLoss):
            raise UserError(f"WeightedMixedMode needs inner_loss=WeightedLoss(...), not {loss!r}; or use MixedMode()")
        return reverse_sweep(problem, derivatives.WeightedDerivatives(loss), remat=self.remat, store=self.store)
