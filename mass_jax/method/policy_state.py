"""State of a training that updates the policy alone, as the baselines that train the solver do."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mass_jax.method import outer_optimizer
from mass_jax.types import Params, PyTree


class PolicyState(NamedTuple):
    """State of training.

    Attributes:
        step: number of finished steps, int32.
        policy: the trained parameters.
        policy_opt_state: state of the optimizer.
    """

    step: jax.Array
    policy: Params
    policy_opt_state: PyTree


def init_state(optimizer: optax.GradientTransformation, policy_params: Params) -> PolicyState:
    """Returns the state before the first step."""
    return PolicyState(jnp.zeros((), jnp.int32), policy_params, optimizer.init(policy_params))


def updated(optimizer: optax.GradientTransformation, state: PolicyState, grads: Params) -> PolicyState:
    """Returns the state after an update with the gradients of the policy."""
    new = outer_optimizer.update(optimizer, grads, state.policy, state.policy_opt_state)
    return PolicyState(state.step + 1, *new)
