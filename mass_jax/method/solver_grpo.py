"""The Solver GRPO baseline: the same tasks and samples, spent on direct attempts with binary rewards.

Letters: N tasks, M attempts of a task, T tokens.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mass_jax.method.models import Weights
from mass_jax.method.objective import Surrogate
from mass_jax.method.signal import signal_metrics
from mass_jax.method.text import Rollout


@dataclasses.dataclass(frozen=True)
class SolverGrpo:
    """All that is fixed while training the baseline."""

    surrogate: Surrogate
    optimizer: optax.GradientTransformation


class GrpoState(NamedTuple):
    """All that training changes, and the step count."""

    step: jax.Array
    policy: Any
    policy_opt_state: Any


def init_state(learner: SolverGrpo, policy_params: Any) -> GrpoState:
    """The state before the first step."""
    return GrpoState(jnp.zeros((), jnp.int32), policy_params, learner.optimizer.init(policy_params))


def grpo_step(
    learner: SolverGrpo, state: GrpoState, base: Any, attempts: Rollout, right_NM: jax.Array
) -> tuple[GrpoState, dict[str, jax.Array]]:
    """One policy-gradient step on attempts [N, M, T] with binary rewards.

    Source: the paper, section 3.2, "Solver GRPO"; Shao et al. 2024.
    """

    def loss(policy_params: Any) -> tuple[jax.Array, jax.Array]:
        return learner.surrogate(Weights(base, policy_params), attempts, right_NM)

    (value, clipped), grads = jax.value_and_grad(loss, has_aux=True)(state.policy)
    updates, opt_state = learner.optimizer.update(grads, state.policy_opt_state, state.policy)
    metrics = signal_metrics(right_NM) | {
        "loss": value,
        "reward": right_NM.mean(),
        "reward_std": right_NM.std(-1).mean(),
        "clip_ratio": clipped,
        "grad_norm": optax.tree.norm(grads),
    }
    return GrpoState(state.step + 1, optax.apply_updates(state.policy, updates), opt_state), metrics
