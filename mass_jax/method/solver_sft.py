"""Supervised fine-tuning of the solver on gold solutions: the part of MASS_gold that is not meta-learning.

Shape suffixes: N problems, J = 1 solution per problem, T tokens.
"""

import dataclasses

import jax
import optax

from mass_jax.method.models import Weights
from mass_jax.method.objective import Surrogate
from mass_jax.method.policy_state import PolicyState, updated
from mass_jax.method.text import Text
from mass_jax.types import Params


@dataclasses.dataclass(frozen=True)
class SolverSft:
    """Everything that stays fixed during training.

    Attributes:
        surrogate: the loss of solutions, as in `GeneratorObjective`.
        gamma: weight of the loss, which matters to clipping only.
        optimizer: optimizer of the policy.
    """

    surrogate: Surrogate
    gamma: float
    optimizer: optax.GradientTransformation


def sft_step(
    learner: SolverSft, state: PolicyState, base: Params, solutions: Text
) -> tuple[PolicyState, dict[str, jax.Array]]:
    r"""Runs one step on the loss of gold solutions, which is L_solve of MASS_gold.

    .. math:: L = \gamma \frac{1}{N} \sum_n -\frac{1}{|a_n|} \sum_t \log \pi_\theta(a_{n,t} \mid p_n, a_{n,<t})

    Args:
        learner: loss and optimizer; static under jit.
        state: state before the step.
        base: frozen parameters; empty if the generator is trained in full.
        solutions: gold solutions, [N, 1, T].

    Returns:
        The state after the step, and scalars to log; `loss` is in nats per token, before its weight.

    Source: the paper, section 2.3, L_solve with gold solutions.
    """

    def loss(policy_params: Params) -> tuple[jax.Array, jax.Array]:
        value = learner.surrogate.completion_nll(Weights(base, policy_params), solutions).mean()
        return learner.gamma * value, value

    grads, value = jax.grad(loss, has_aux=True)(state.policy)
    return updated(learner.optimizer, state, grads), {"loss": value, "grad_norm": optax.tree.norm(grads)}
