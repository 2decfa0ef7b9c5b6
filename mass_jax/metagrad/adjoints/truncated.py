"""Truncated backpropagation: differentiates the last steps only."""

import dataclasses

from mass_jax.errors import UserError
from mass_jax.metagrad import derivatives
from mass_jax.metagrad.adjoints.base import Adjoint, BilevelProblem, MetaGradient
from mass_jax.metagrad.adjoints.reverse_sweep import reverse_sweep


@dataclasses.dataclass(frozen=True)
class Truncated(Adjoint):
    """Biased: differentiates exactly through the last `steps` inner steps and treats earlier ones as constant.

    Memory and time: those of `MixedMode` (of `WeightedMixedMode` for a `WeightedLoss`) at K = `steps`, plus K - `steps`
    gradients. Exact if `steps` is at least K.

    Attributes:
        steps: number of inner steps to differentiate through, at least 1.

    Source: Shaban et al. 2019 (arXiv:1810.10667).
    """

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"Truncated(steps={self.steps}) would not differentiate any step; give at least 1")

    def apply(self, problem: BilevelProblem) -> MetaGradient:
        """Runs the reverse sweep over the last `steps` steps."""
        num_steps = problem.loop.num_steps
        if problem.wrt_params and self.steps < num_steps:
            raise UserError(f"{self} cuts off the initial parameters of num_steps={num_steps}; use MixedMode()")
        return reverse_sweep(problem, derivatives.derivatives_of(problem.loop.loss), steps=self.steps)
