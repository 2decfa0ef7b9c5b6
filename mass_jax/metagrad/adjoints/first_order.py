"""First-order approximation: no second derivatives."""

import dataclasses

from mass_jax.metagrad import derivatives
from mass_jax.metagrad.adjoints.base import Adjoint, BilevelProblem, MetaGradient
from mass_jax.metagrad.adjoints.reverse_sweep import reverse_sweep


@dataclasses.dataclass(frozen=True)
class FirstOrder(Adjoint):
    """Biased: omits Hessian products, so the adjoint crosses a step only through the optimizer's linear terms.

    Memory: K P + 2 forward activations (with a `WeightedLoss`). Time: K gradients, one outer gradient, and K JVPs of
    about 1/2. Exact at K = 1.

    Source: Nichol et al. 2018 (arXiv:1803.02999), first-order MAML, with the optimizer state kept in the adjoint.
    """

    def apply(self, problem: BilevelProblem) -> MetaGradient:
        """Runs the reverse sweep without Hessian products."""
        return reverse_sweep(problem, derivatives.derivatives_of(problem.loop.loss), hessian=False)
