"""One meta-training step: scores, adaptation, exact meta-gradients, both updates; one jitted function.

Letters: N tasks, M examples of a task, J solutions of a task, T tokens, K inner steps.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mass_jax import metagrad as mg
from mass_jax.llama import Llama
from mass_jax.method import score
from mass_jax.method.adapt import LoraLoop
from mass_jax.method.models import Read, Solver, Weights
from mass_jax.method.objective import GeneratorObjective
from mass_jax.method.outer import outer_loss
from mass_jax.method.signal import signal_metrics
from mass_jax.method.text import Rollout, Text


@dataclasses.dataclass(frozen=True)
class Learner:
    """All that is fixed while meta-training: models, inner loop, objective, optimizers.

    Args:
        loop: inner loop, with the adjoint.
        scorer: the scorer's trunk.
        objective: what the generator minimizes.
        policy_optimizer, scorer_optimizer: outer optimizers; they ignore non-finite gradients and count them.
        warmup_steps: first steps, in which only the scorer learns.
        shuffle_rewards: permutes the rewards within each task (a control: rewards without information).
    """

    loop: LoraLoop
    scorer: Llama
    objective: GeneratorObjective
    policy_optimizer: optax.GradientTransformation
    scorer_optimizer: optax.GradientTransformation
    warmup_steps: int
    shuffle_rewards: bool = False

    @property
    def solver(self) -> Solver:
        return self.loop.solver


class MetaState(NamedTuple):
    """All that meta-training changes, and the step count."""

    step: jax.Array
    policy: Any
    scorer: Any
    policy_opt_state: Any
    scorer_opt_state: Any


class TaskBatch(NamedTuple):
    """One step's tasks with what was written and attempted for them.

    Args:
        examples: [N, M, T] parsed examples in solver form; rows that failed to parse are masked.
        scorer_texts: [N, M, T] the same in scorer form.
        generated: [N, M, T] generator prompt with what was sampled.
        solutions: [N, J, T] the gold solution (J = 1), or the adapted model's k attempts.
        right_NJ: 1 for solutions that are right.
        adapters: fresh inner adapters, leading axis N.
    """

    examples: Text
    scorer_texts: Text
    generated: Rollout
    solutions: Rollout
    right_NJ: Any
    adapters: Any


class StepOutput(NamedTuple):
    """What one step found out: scalars to log, and per-example scores and rewards."""

    metrics: dict[str, jax.Array]
    scores_NM: jax.Array
    rewards_NM: jax.Array


def init_state(key: jax.Array, learner: Learner, policy_params: Any) -> MetaState:
    """The state before the first step."""
    scorer = score.init(key, learner.scorer)
    return MetaState(
        jnp.zeros((), jnp.int32),
        policy_params,
        scorer,
        learner.policy_optimizer.init(policy_params),
        learner.scorer_optimizer.init(scorer),
    )


def score_gradients(learner: Learner, weights: Weights, scores_NM: jax.Array, batch: TaskBatch) -> mg.MetaGradient:
    r"""Outer loss of every task and its exact derivative in every example's score, task by task under vmap.

    .. math:: \frac{\partial L_{outer}}{\partial s_i} = \sum_t \langle \nabla \ell_i(\phi_t), \bar g_t \rangle

    Args:
        learner: its adjoint decides how this is computed.
        weights: the generator's weights.
        scores_NM: scores of the examples.
        batch: the tasks.

    Returns:
        `MetaGradient` with leading axis N: value_N in nats a token, meta_NM, aux.

    Source: the paper, section 2.3; Kemaev et al. 2025 for mixed mode.
    """
    loop = learner.loop

    def of_adapted(adapter: Any, target: tuple[Text | Read, jax.Array]) -> jax.Array:
        return outer_loss(learner.solver, weights, adapter, *target)

    def one(adapter: Any, scores_M: jax.Array, examples: Text, target: tuple[Text, jax.Array]) -> mg.MetaGradient:
        solutions, right_J = target
        return mg.meta_gradient(
            loop.loss(weights),
            of_adapted,
            adapter,
            scores_M,
            learner.solver.read(weights, examples),
            (learner.solver.read(weights, solutions), right_J),
            optimizer=loop.optimizer,
            num_steps=loop.num_steps,
            adjoint=loop.adjoint,
        )

    return jax.vmap(one)(batch.adapters, scores_NM, batch.examples, (batch.solutions.text, batch.right_NJ))


def meta_step(
    learner: Learner, state: MetaState, base: Any, batch: TaskBatch, key: jax.Array
) -> tuple[MetaState, StepOutput]:
    """One meta-training iteration after sampling: steps (2) to (5) of the paper's section 2.3.

    Args:
        learner: static under jit.
        state: before the step.
        base: frozen parameters (empty if the generator is trained in full).
        batch: the tasks with their samples.
        key: for the shuffled control only.

    Returns:
        The state after the step, and what it found out. A task whose meta-gradient is not finite counts for nothing
        and is counted; an update that is not finite is skipped and counted by the outer optimizers.
    """
    weights = Weights(base, state.policy)
    scores_NM, scorer_vjp = jax.vjp(lambda eta: score.scores(learner.scorer, eta, batch.scorer_texts), state.scorer)
    found = score_gradients(learner, weights, scores_NM, batch)
    finite_N = jnp.isfinite(found.value) & jnp.isfinite(found.meta).all(-1)
    gradient_NM = jnp.where(finite_N[:, None], found.meta, 0)
    rewards_NM = -gradient_NM
    taught_NM = _shuffle(key, rewards_NM) if learner.shuffle_rewards else rewards_NM

    # A batch without one finite task is no step: not-a-number makes both optimizers skip it and count it.
    unless_lost = jnp.where(finite_N.any(), 1.0, jnp.nan).astype(gradient_NM.dtype)
    (scorer_grads,) = scorer_vjp(unless_lost * gradient_NM / finite_N.size)
    scorer, scorer_opt_state = _update(learner.scorer_optimizer, scorer_grads, state.scorer, state.scorer_opt_state)

    solutions = _only(finite_N, batch.solutions)

    def train_policy() -> tuple[Any, Any, dict[str, jax.Array]]:
        return policy_update(learner, state, base, batch._replace(solutions=solutions), unless_lost * taught_NM)

    shapes = jax.eval_shape(train_policy)[2]
    parts_of_warmup = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    policy_params, policy_opt_state, parts = jax.lax.cond(
        state.step >= learner.warmup_steps,
        train_policy,
        lambda: (state.policy, state.policy_opt_state, parts_of_warmup),
    )
    metrics = parts | _metrics(found, finite_N, rewards_NM, scores_NM, batch, scorer_grads)
    new_state = MetaState(state.step + 1, policy_params, scorer, policy_opt_state, scorer_opt_state)
    return new_state, StepOutput(metrics, scores_NM, rewards_NM)


def policy_update(
    learner: Learner, state: MetaState, base: Any, batch: TaskBatch, rewards_NM: jax.Array
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """One step of the generator on L_generator: its new weights and optimizer state, and scalars to log."""

    def loss(policy_params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        weights = Weights(base, policy_params)
        return learner.objective(weights, batch.generated, rewards_NM, batch.solutions, batch.right_NJ)

    grads, parts = jax.grad(loss, has_aux=True)(state.policy)
    new = _update(learner.policy_optimizer, grads, state.policy, state.policy_opt_state)
    return *new, parts | {"grad_norm": optax.tree.norm(grads)}


@functools.cache  # equal settings give the same object, so that another seed's step is not compiled anew
def outer_optimizer(rate: float, grad_clip: float, decay_steps: int | None = None) -> optax.GradientTransformation:
    """Adam behind a clipped global norm; skips non-finite gradients and counts them in its state, however many.

    Args:
        rate: Adam's rate.
        grad_clip: global norm at which gradients are clipped.
        decay_steps: steps over which the rate falls linearly to 0; None keeps it.
    """
    schedule = rate if decay_steps is None else optax.linear_schedule(rate, 0.0, decay_steps)
    return optax.apply_if_finite(
        optax.chain(optax.clip_by_global_norm(grad_clip), optax.adam(schedule)), max_consecutive_errors=2**31 - 1
    )


def _shuffle(key: jax.Array, rewards_NM: jax.Array) -> jax.Array:
    """Permutes rewards within each task."""
    return jax.random.permutation(key, rewards_NM, axis=1, independent=True)


def _only(finite_N: jax.Array, solutions: Rollout) -> Rollout:
    """Masks the solutions of the other tasks: what a model that is not finite has sampled has no probability."""
    text = solutions.text
    finite_N11 = finite_N[:, None, None]
    target_NJT = jnp.where(finite_N11, text.target_BT, 0)
    return Rollout(text._replace(target_BT=target_NJT), jnp.where(finite_N11, solutions.logprobs_BT, 0))


def _update(optimizer: optax.GradientTransformation, grads: Any, params: Any, opt_state: Any) -> tuple[Any, Any]:
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _metrics(
    found: mg.MetaGradient,
    finite_N: jax.Array,
    rewards_NM: jax.Array,
    scores_NM: jax.Array,
    batch: TaskBatch,
    scorer_grads: Any,
) -> dict[str, jax.Array]:
    """Scalars to log; names are TRL's where TRL has the quantity."""
    has_target_N = finite_N & (batch.right_NJ.sum(-1) > 0)
    return signal_metrics(rewards_NM) | {
        "outer_loss": jnp.where(has_target_N, found.value, 0).sum() / jnp.maximum(has_target_N.sum(), 1),
        "reward": rewards_NM.mean(),
        "reward_std": rewards_NM.std(-1).mean(),
        "tasks_not_finite": (~finite_N).sum(),
        "right_rate": batch.right_NJ.mean(),
        "score_mean": scores_NM.mean(),
        "scorer_grad_norm": optax.tree.norm(scorer_grads),
    }
