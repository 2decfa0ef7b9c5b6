"""Under reward 0 for rejected text, a scale-invariant inner optimizer lets a generator stop writing examples.

The generator is a softmax over five texts: four examples, of which two help and two harm, and a bare answer that does
not parse. L_solve raises the probability of the bare answer, as it does for a model that shares its weights. Inner
loop, rewards, advantages and surrogate are those of the package.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax import metagrad as mg
from mass_jax.method.policy_gradient import clipped_surrogate, group_advantages
from mass_jax.method.rejected import RejectedReward

TASKS, TEXTS, STEPS, GAMMA, RATE = 8, 8, 100, 0.1, 0.3
BARE = 4
TARGET = np.array([1.0, -0.5, 0.25], np.float32)
INPUTS = np.array([[1.0, 0.0, 0.5], [0.2, -1.0, 0.0], [0.5, 0.5, 0.5], [-1.0, 0.3, 0.6], [0, 0, 0]], np.float32)
LABELS = INPUTS @ TARGET * np.array([1, 1, -1, -1, 0], np.float32)  # two examples are wrong


def rewards_of(optimizer, actions_M, start):
    """Marginal rewards of one group of texts, from a linear model that adapts to them."""
    batch = (jnp.asarray(INPUTS)[actions_M], jnp.asarray(LABELS)[actions_M])
    found = mg.meta_gradient(
        mg.WeightedLoss(lambda params, batch: (batch[0] @ params - batch[1]) ** 2),
        lambda params, target: jnp.square(params - target).sum(),
        start,
        jnp.full(TEXTS, 0.5),
        batch,
        jnp.asarray(TARGET),
        optimizer=optimizer,
        num_steps=2,
        adjoint=mg.WeightedMixedMode(),
    )
    return -found.meta


@functools.partial(jax.jit, static_argnames=("optimizer", "rule"))
def train(optimizer, rule):
    """Trains the softmax; returns the probabilities of the five texts before each step."""

    def step(logits, key):
        action_key, start_key = jax.random.split(key)
        actions_NM = jax.random.categorical(action_key, logits, shape=(TASKS, TEXTS))
        starts = 0.1 * jax.random.normal(start_key, (TASKS, 3))
        rewards_NM = jax.vmap(functools.partial(rewards_of, optimizer))(actions_NM, starts)
        advantages_NM = group_advantages(rule(rewards_NM, actions_NM != BARE), 0.01)
        old_BT = jax.nn.log_softmax(logits)[actions_NM].reshape(-1, 1)

        def loss(logits):
            logprobs = jax.nn.log_softmax(logits)
            new_BT = logprobs[actions_NM].reshape(-1, 1)
            ones_BT = jnp.ones_like(new_BT)
            aux_B = clipped_surrogate(new_BT, old_BT, ones_BT, advantages_NM.reshape(-1), clip_ratio=0.2)
            return aux_B.mean() - GAMMA * logprobs[BARE]

        return logits - RATE * jax.grad(loss)(logits), jax.nn.softmax(logits)

    return jax.lax.scan(step, jnp.zeros(5), jax.random.split(jax.random.key(0), STEPS))[1]


@functools.cache
def parse_share(name, rate, value):
    return 1 - np.asarray(train(mg.parse_optimizer(name, rate), RejectedReward(value)))[:, BARE]


def test_adam_collapses_under_zero_and_not_under_worst():
    zero, worst = (parse_share("adam", 0.03, value) for value in (0.0, "worst"))
    assert zero[0] == worst[0] == pytest.approx(0.8)
    assert zero[-10:].mean() < 0.45
    assert worst[-10:].mean() > 0.84


def test_sgd_does_not_collapse_under_zero():
    """Its rewards do not sum to 0 in each group: the average example is worth more than nothing."""
    assert parse_share("sgd", 0.1, 0.0)[-10:].mean() > 0.8
