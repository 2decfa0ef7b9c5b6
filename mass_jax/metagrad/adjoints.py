r"""The ways to differentiate through an inner loop; one of them is the `adjoint` argument of `meta_gradient`.

Notation: K inner steps, P bytes of parameters plus optimizer state, A bytes of activations of one gradient of the inner
loss (with the rematerialization that the loss itself applies; a loss that checkpoints its blocks has the block policy
with every adjoint), M examples. Times are in units of one gradient of the inner loss on all M examples.
"""

import dataclasses
from typing import Literal, get_args

ReverseRemat = Literal["none", "step", "save_grads", "recursive"]
SweepRemat = Literal["save_grads", "step", "recursive"]


def _check(remat: str, allowed: object) -> None:
    names = get_args(allowed)
    if remat == "offload":
        raise ValueError("remat='offload' is not offered: no measurement showed that it moves bytes; use 'recursive'")
    if remat not in names:
        raise ValueError(f"remat={remat!r} is not one of {', '.join(map(repr, names))}")


@dataclasses.dataclass(frozen=True)
class ReverseUnroll:
    """Reverse mode over the unrolled loop, which differentiates every backward pass once more: plain JAX.

    Memory: "none" K (P + several A, residuals of the backward passes too); "step" K P + several A; "save_grads" the
    same plus K gradients; "recursive" 2 sqrt(K) P + several A. Time: about 2 (K + 1) for "none", plus K for "step" and
    2 K for "recursive".

    Attributes:
        remat: "none"; "step" recomputes each step in the backward pass; "save_grads" too, but keeps the inner gradient;
            "recursive" keeps sqrt(K) states.

    Source: Maclaurin et al. 2015 for the unroll; Chen et al. 2016 (arXiv:1604.06174) for the square root.
    """

    remat: ReverseRemat = "none"

    def __post_init__(self) -> None:
        _check(self.remat, ReverseRemat)


@dataclasses.dataclass(frozen=True)
class MixedMode:
    """Exact for any inner loss: a reverse sweep over the steps, forward mode over each step's joint gradient.

    The Hessian is symmetric, so its product with a cotangent is one JVP of the gradient; no backward pass is
    differentiated backward. Memory: K P + 2 A ("recursive" 2 sqrt(K) P + 2 A). Time: K gradients, one outer gradient,
    and K forward-over-reverse products of about 2 to 3 each.

    Attributes:
        remat: "save_grads" keeps every step's state and inner gradient; "step" recomputes the gradient from the state
            (one more gradient a step if the optimizer is not linear in it); "recursive" keeps sqrt(K) states.

    Source: Kemaev et al. 2025 (MixFlow-MG, arXiv:2505.00793), section 3.
    """

    remat: SweepRemat = "save_grads"

    def __post_init__(self) -> None:
        _check(self.remat, SweepRemat)


@dataclasses.dataclass(frozen=True)
class WeightedMixedMode:
    r"""Exact for a `WeightedLoss`: one JVP of the example losses a step, and exactly K - 1 Hessian products.

    .. math:: \frac{dL_{out}}{dw_i} = \sum_{t=0}^{K-1} \langle \nabla \ell_i(\phi_t), \bar g_t \rangle

    with :math:`\bar g_t` the cotangent of step t's inner gradient. Memory: as `MixedMode`; without Hessian product
    (K = 1) that of one forward pass. Time: K gradients, one outer gradient, K - 1 products of 2 to 3, one JVP of 1/2.

    Attributes:
        remat: as for `MixedMode`.

    Source: MixFlow-MG (as above) specialized to MASS, section 2.3, the sensitivity to an example's score.
    """

    remat: SweepRemat = "save_grads"

    def __post_init__(self) -> None:
        _check(self.remat, SweepRemat)


@dataclasses.dataclass(frozen=True)
class FirstOrder:
    """Biased: no Hessian product; the adjoint crosses a step through the optimizer's linear terms only.

    Memory: K P + 2 forward activations (with a `WeightedLoss`). Time: K gradients, one outer gradient, K JVPs of 1/2.
    Exact at K = 1.

    Source: Nichol et al. 2018 (arXiv:1803.02999), first-order MAML, with the optimizer's state kept in the adjoint.
    """


@dataclasses.dataclass(frozen=True)
class Truncated:
    """Biased: differentiates exactly through the last `steps` inner steps and takes what precedes them as constant.

    Memory and time: those of `MixedMode` (of `WeightedMixedMode` for a `WeightedLoss`) at K = `steps`, plus K - `steps`
    gradients. Exact when `steps` is at least K.

    Attributes:
        steps: inner steps to differentiate through, at least 1.

    Source: Shaban et al. 2019 (arXiv:1810.10667).
    """

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Truncated(steps={self.steps}) differentiates through no step; give at least 1")


Adjoint = ReverseUnroll | MixedMode | WeightedMixedMode | FirstOrder | Truncated
