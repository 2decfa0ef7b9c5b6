"""Mixed mode for any inner loss."""

import dataclasses

from mass_jax.metagrad import derivatives
from mass_jax.metagrad.adjoints.base import Adjoint, BilevelProblem, MetaGradient, check_remat, check_store, described
from mass_jax.metagrad.adjoints.reverse_sweep import SweepRemat, reverse_sweep
from mass_jax.metagrad.store import Store


@dataclasses.dataclass(frozen=True)
class MixedMode(Adjoint):
    """Exact for any inner loss: a reverse sweep over the steps, with forward mode over each step's joint gradient.

    The Hessian is symmetric, so its product with a cotangent is one JVP of the gradient; no backward pass is
    differentiated in reverse. Memory: K P + 2 A; 2 sqrt(K) P + 2 A for "recursive"; sqrt(K) P + 2 A and K
    gradients for "replay".
    Time: K gradients, one outer gradient, and K forward-over-reverse products of about 2 to 3 each.

    Attributes:
        remat: "save_grads" stores every step's state and inner gradient; "step" recomputes the gradient from the state
            (one more gradient per step unless the optimizer is linear in it); "recursive" stores about sqrt(K) states
            and computes every gradient twice; "replay" stores every inner gradient, and repeats the optimizer's
            updates, about sqrt(K) / 2 per step, which saves memory if the optimizer's state is large, as for Adam.
        store: where they are stored: None on the device, `HostStore()` in the host's memory, `DiskStore()` on disk. In
            a store, device memory is P + 2 A for any K. Not for "recursive" or "replay".

    Source: Kemaev et al. 2025 (MixFlow-MG, arXiv:2505.00793), section 3.
    """

    remat: SweepRemat = "save_grads"
    store: Store | None = None

    def __post_init__(self) -> None:
        check_remat(self.remat, SweepRemat)
        check_store(self.store, self.remat)

    def __repr__(self) -> str:
        return described(self)

    def apply(self, problem: BilevelProblem) -> MetaGradient:
        """Runs the reverse sweep with products of the joint gradient."""
        loss = derivatives.JointDerivatives(problem.loop.loss)
        return reverse_sweep(problem, loss, remat=self.remat, store=self.store)
