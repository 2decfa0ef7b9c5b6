"""Supervised fine-tuning of the solver against L_solve of MASS_gold."""

import chex
import jax
import pytest

from mass_jax.method import meta_step, solver_sft
from mass_jax.method.policy_state import init_state
from mass_jax.training.learners import sft_learner


@pytest.fixture(scope="module")
def sft(components):
    return sft_learner(components.config, components.rollouts.solver)


@pytest.fixture(scope="module")
def step():
    return jax.jit(solver_sft.sft_step, static_argnums=0)


def test_sft_step_equals_gold_update_without_rewards(components, learner, sft, step, batch):
    gold = learner("gold", "unrewarded")
    start = components.pretrained()
    state = meta_step.init_state(jax.random.key(0), gold, start.policy)
    rewards_NM = jax.numpy.ones(batch.generated.text.target_BT.shape[:2])
    update = jax.jit(meta_step.policy_update, static_argnums=0)
    expected, _, terms = update(gold, state, start.base, batch, rewards_NM)
    got, metrics = step(sft, init_state(sft.optimizer, start.policy), start.base, batch.solutions.text)
    chex.assert_trees_all_close(got.policy, expected, rtol=1e-5, atol=1e-6)
    assert float(metrics["loss"]) == pytest.approx(float(terms["solve_loss"]), rel=1e-5)
    assert int(got.step) == 1


def test_sft_steps_lower_loss(components, sft, step, batch):
    start = components.pretrained()
    state, losses = init_state(sft.optimizer, start.policy), []
    for _ in range(3):
        state, metrics = step(sft, state, start.base, batch.solutions.text)
        losses.append(float(metrics["loss"]))
    assert losses[0] > losses[1] > losses[2] > 0
