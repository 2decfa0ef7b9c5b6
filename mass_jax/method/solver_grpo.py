"""The Solver GRPO baseline: direct attempts with binary rewards, on the same problems and number of samples.

Shape suffixes: N problems, M attempts per problem, T tokens.
"""

import dataclasses

import jax
import optax

from mass_jax.method.models import Weights
from mass_jax.method.objective import Surrogate
from mass_jax.method.policy_state import PolicyState, updated
from mass_jax.method.signal import signal_metrics
from mass_jax.method.text import Rollout
from mass_jax.types import Params


@dataclasses.dataclass(frozen=True)
class SolverGrpo:
    """Everything that stays fixed during training.

    Attributes:
        surrogate: the clipped surrogate loss.
        answer_tokens: slots for generated tokens in the rows of attempts.
        optimizer: optimizer of the policy.
    """

    surrogate: Surrogate
    answer_tokens: int
    optimizer: optax.GradientTransformation


def grpo_step(
    learner: SolverGrpo, state: PolicyState, base: Params, attempts: Rollout, right_NM: jax.Array
) -> tuple[PolicyState, dict[str, jax.Array]]:
    """Runs one policy-gradient step with binary rewards.

    Args:
        learner: loss and optimizer; static under jit.
        state: state before the step.
        base: frozen parameters; empty if the generator is trained in full.
        attempts: rollout of the attempts, [N, M, T].
        right_NM: 1 for correct attempts, float32.

    Returns:
        The state after the step, and scalars to log.

    Source: the paper, section 3.2, "Solver GRPO"; Shao et al. 2024.
    """

    def loss(policy_params: Params) -> tuple[jax.Array, jax.Array]:
        return learner.surrogate(Weights(base, policy_params), attempts, right_NM, learner.answer_tokens)

    (value, clipped), grads = jax.value_and_grad(loss, has_aux=True)(state.policy)
    metrics = signal_metrics(right_NM) | {
        "loss": value,
        "reward": right_NM.mean(),
        "reward_std": right_NM.std(-1).mean(),
        "clip_ratio": clipped,
        "grad_norm": optax.tree.norm(grads),
    }
    return updated(learner.optimizer, state, grads), metrics
