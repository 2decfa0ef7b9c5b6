"""One meta-training step: scores, adaptation, exact meta-gradients and both updates.

Shape suffixes: N problems, M examples per problem, J solutions per problem, T tokens, K inner steps.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import optax

from mass_jax import metagrad as mg
from mass_jax.llama import Llama, lora
from mass_jax.method import finite, learning, outer_optimizer, rejected, rewards, score
from mass_jax.method.adapt import LoraLoop
from mass_jax.method.groups import over_tasks
from mass_jax.method.models import Read, Solver, Weights
from mass_jax.method.objective import GeneratorObjective
from mass_jax.method.outer import adapted_losses, outer_loss
from mass_jax.method.signal import signal_metrics
from mass_jax.method.text import Rollout, Text
from mass_jax.types import Adapter, Params, PyTree


@dataclasses.dataclass(frozen=True)
class Learner:
    """Everything that stays fixed during meta-training: models, inner loop, objective and optimizers.

    Attributes:
        loop: inner loop, with the solver and the adjoint.
        scorer: the scorer's trunk.
        objective: the generator's objective.
        policy_optimizer: outer optimizer of the generator; skips and counts non-finite gradients.
        scorer_optimizer: outer optimizer of the scorer; skips and counts non-finite gradients.
        warmup_steps: number of first steps that train only the scorer.
        shuffle_rewards: whether rewards are permuted within each problem (a control: rewards without information).
        reward: reward of the examples.
        rejected_reward: rule for the rewards of rejected texts, which the generator is trained on.
        scorer_baseline: "group" subtracts its mean over each problem's parsed examples from the meta-gradient that
            trains the scorer; "none" is the paper.
        inner_optimizer: outer optimizer of the hyperparameters of `loop.learned`; None if there are none.
    """

    loop: LoraLoop
    scorer: Llama
    objective: GeneratorObjective
    policy_optimizer: optax.GradientTransformation
    scorer_optimizer: optax.GradientTransformation
    warmup_steps: int
    shuffle_rewards: bool = False
    reward: rewards.Reward = rewards.MARGINAL
    rejected_reward: rejected.RejectedReward = rejected.WORST
    scorer_baseline: Literal["none", "group"] = "none"
    inner_optimizer: optax.GradientTransformation | None = None

    @property
    def solver(self) -> Solver:
        """The language model."""
        return self.loop.solver


class MetaState(NamedTuple):
    """State of meta-training.

    Attributes:
        step: number of finished steps, int32.
        policy: the generator's trained parameters.
        scorer: the scorer's parameters.
        policy_opt_state: state of the generator's optimizer.
        scorer_opt_state: state of the scorer's optimizer.
    """

    step: jax.Array
    policy: Params
    scorer: Params
    policy_opt_state: PyTree
    scorer_opt_state: PyTree


class TaskBatch(NamedTuple):
    """One step's problems with their examples and solutions.

    Attributes:
        examples: parsed examples in solver form, [N, M, T]; rows that failed to parse are masked.
        scorer_texts: the same examples in scorer form, [N, M, T].
        generated: rollout of the examples, [N, M, T].
        solutions: the gold solution (J = 1) or the adapted model's k attempts, [N, J, T].
        right_NJ: 1 for correct solutions, float32.
        adapters: fresh inner adapters, one per problem.
        start_logprobs_NMT: log-probabilities of `generated` before training, float32; None without a KL term.
    """

    examples: Text
    scorer_texts: Text
    generated: Rollout
    solutions: Rollout
    right_NJ: Any
    adapters: Adapter
    start_logprobs_NMT: Any = None


class StepOutput(NamedTuple):
    """Results of one step.

    Attributes:
        metrics: scalars to log.
        scores_NM: scores of the examples.
        rewards_NM: rewards of the examples, before those of rejected texts are replaced.
    """

    metrics: dict[str, jax.Array]
    scores_NM: jax.Array
    rewards_NM: jax.Array


def init_state(key: jax.Array, learner: Learner, policy_params: Params) -> MetaState:
    """Returns the state before the first step, with a fresh scorer."""
    scorer = score.init(key, learner.scorer)
    state = MetaState(
        jnp.zeros((), jnp.int32),
        policy_params,
        scorer,
        learner.policy_optimizer.init(policy_params),
        learner.scorer_optimizer.init(scorer),
    )
    return learning.with_inner(state, learner.loop, learner.inner_optimizer)


def score_gradients(learner: Learner, weights: Weights, scores_NM: jax.Array, batch: TaskBatch) -> mg.MetaGradient:
    r"""Outer loss of each problem and its exact gradient with respect to the scores of the examples.

    .. math:: \frac{\partial L_{outer}}{\partial s_i} = \sum_t \langle \nabla \ell_i(\phi_t), \bar g_t \rangle

    Args:
        learner: the models and the inner loop, whose adjoint computes the gradient.
        weights: the generator's weights.
        scores_NM: scores of the examples.
        batch: the problems.

    Returns:
        `MetaGradient` with leading axis N: `value` [N] in nats per token, `meta` [N, M] and `aux`.

    Source: the paper, section 2.3; Kemaev et al. 2025 for mixed mode.
    """
    return learning.split(_gradients(learner, weights, scores_NM, batch))[0]


def _gradients(learner: Learner, weights: Weights, scores_NM: jax.Array, batch: TaskBatch) -> mg.MetaGradient:
    """Returns `score_gradients`, with those of the learned hyperparameters if there are any."""
    loop = learner.loop

    def of_adapted(adapter: Adapter, target: tuple[Text | Read, jax.Array]) -> jax.Array:
        return outer_loss(learner.solver, weights, adapter, *target)

    def one(leaves: PyTree, scores_M: jax.Array, examples: Text, target: tuple[Text, jax.Array]) -> mg.MetaGradient:
        solutions, right_J = target
        inner_loss, meta, optimizer = learning.bilevel(loop, weights, scores_M)
        return mg.meta_gradient(
            inner_loss,
            of_adapted,
            batch.adapters.one(leaves),
            meta,
            learner.solver.read(weights, examples),
            (learner.solver.read(weights, solutions), right_J),
            optimizer=optimizer,
            num_steps=loop.num_steps,
            adjoint=loop.adjoint,
        )

    leaves = lora.checked(batch.adapters, batched=True).leaves
    targets = batch.solutions.text, batch.right_NJ
    return over_tasks(one, loop.tasks_at_a_time, leaves, scores_NM, batch.examples, targets)


def meta_step(
    learner: Learner, state: MetaState, base: Params, batch: TaskBatch, key: jax.Array
) -> tuple[MetaState, StepOutput]:
    """Runs one meta-training iteration after sampling.

    A problem whose meta-gradient is not finite contributes nothing and is counted in the metrics. An update that is
    not finite is skipped and counted by the outer optimizers.

    Args:
        learner: models, objective and optimizers; static under jit.
        state: state before the step.
        base: frozen parameters; empty if the generator is trained in full.
        batch: the problems with their samples.
        key: random key, used only by the control with shuffled rewards.

    Returns:
        The state after the step, and its results.

    Source: steps (2) to (5) of the paper's section 2.3.
    """
    weights = learning.weights_of(base, state)

    def scores_of(scorer: Params) -> jax.Array:
        return score.scores(learner.scorer, scorer, batch.scorer_texts, learner.loop.tasks_at_a_time)

    scores_NM, scorer_vjp = jax.vjp(scores_of, state.scorer)
    gradients, inner_N = learning.split(_gradients(learner, weights, scores_NM, batch))
    finite_N = jnp.isfinite(gradients.value) & jnp.isfinite(gradients.meta).all(-1)
    gradient_NM = jnp.where(finite_N[:, None], gradients.meta, 0)
    rewards_NM, trained_NM = _rewards(learner, weights, scores_NM, gradients.meta, finite_N, batch, key)

    # If no problem of the batch is finite, NaN makes both optimizers skip the step and count it.
    valid = jnp.where(finite_N.any(), 1.0, jnp.nan).astype(gradient_NM.dtype)
    if learner.scorer_baseline == "group":
        gradient_NM = score.centered(gradient_NM, rejected.is_parsed(batch.examples))
    (scorer_grads,) = scorer_vjp(valid * gradient_NM / finite_N.size)
    scorer, scorer_opt_state = outer_optimizer.update(
        learner.scorer_optimizer, scorer_grads, state.scorer, state.scorer_opt_state
    )

    solutions = finite.only_finite(finite_N, batch.solutions)

    def train_policy() -> tuple[Params, PyTree, dict[str, jax.Array]]:
        return policy_update(learner, state, base, batch._replace(solutions=solutions), valid * trained_NM)

    traced, shapes = jax.make_jaxpr(train_policy, return_shape=True)()  # once, for the shapes and for the branch
    structure = jax.tree.structure(shapes)
    warmup_terms = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes[2])
    policy_params, policy_opt_state, terms = jax.lax.cond(
        state.step >= learner.warmup_steps,
        lambda: jax.tree.unflatten(structure, jax.extend.core.jaxpr_as_fun(traced)()),
        lambda: (state.policy, state.policy_opt_state, warmup_terms),
    )
    metrics = terms | _metrics(gradients, finite_N, rewards_NM, trained_NM, scores_NM, batch, scorer_grads)
    state, learned = learning.update(state, learner.loop, learner.inner_optimizer, inner_N, finite_N)
    own = MetaState(state.step + 1, policy_params, scorer, policy_opt_state, scorer_opt_state)
    return state._replace(**own._asdict()), StepOutput(metrics | learned, scores_NM, rewards_NM)


def policy_update(
    learner: Learner, state: MetaState, base: Params, batch: TaskBatch, rewards_NM: jax.Array
) -> tuple[Params, PyTree, dict[str, jax.Array]]:
    """Updates the generator once on L_generator; returns its parameters, its optimizer state and metrics."""

    def loss(policy_params: Params) -> tuple[jax.Array, dict[str, jax.Array]]:
        weights = Weights(base, policy_params)
        return learner.objective(
            weights, batch.generated, rewards_NM, batch.solutions, batch.right_NJ, batch.start_logprobs_NMT
        )

    grads, terms = jax.grad(loss, has_aux=True)(state.policy)
    new = outer_optimizer.update(learner.policy_optimizer, grads, state.policy, state.policy_opt_state)
    return *new, terms | {"grad_norm": optax.tree.norm(grads)}


def _rewards(
    learner: Learner,
    weights: Weights,
    scores_NM: jax.Array,
    gradient_NM: jax.Array,
    finite_N: jax.Array,
    batch: TaskBatch,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns the rewards, and those that the generator is trained on; 0 for problems that are not finite."""
    loss = rewards.ScoreLoss(
        lambda s: adapted_losses(
            learner.loop, weights, batch.adapters, s, batch.examples, batch.solutions.text, batch.right_NJ
        ),
        lambda s: score_gradients(learner, weights, s, batch).meta,
    )
    rewards_NM = learner.reward(loss, scores_NM, gradient_NM, rejected.is_parsed(batch.examples))
    finite_N1 = (finite_N & jnp.isfinite(rewards_NM).all(-1))[:, None]
    rewards_NM = jnp.where(finite_N1, rewards_NM, 0)
    accepted_NM = rejected.is_accepted(batch.examples, batch.generated, learner.solver.config.stop_tokens)
    informative_NM = rewards.shuffled(key, rewards_NM, accepted_NM) if learner.shuffle_rewards else rewards_NM
    return rewards_NM, jnp.where(finite_N1, learner.rejected_reward(informative_NM, accepted_NM), 0)


def _metrics(
    gradients: mg.MetaGradient,
    finite_N: jax.Array,
    rewards_NM: jax.Array,
    trained_NM: jax.Array,
    scores_NM: jax.Array,
    batch: TaskBatch,
    scorer_grads: PyTree,
) -> dict[str, jax.Array]:
    """Returns the scalars to log, named as in TRL where TRL has the same quantity."""
    has_target_N = finite_N & (batch.right_NJ.sum(-1) > 0)
    return signal_metrics(rewards_NM) | {
        "outer_loss": jnp.where(has_target_N, gradients.value, 0).sum() / jnp.maximum(has_target_N.sum(), 1),
        "reward": rewards_NM.mean(),
        "reward_std": rewards_NM.std(-1).mean(),
        "trained_reward": trained_NM.mean(),
        "trained_reward_std": trained_NM.std(-1).mean(),
        "tasks_not_finite": (~finite_N).sum(),
        "right_rate": batch.right_NJ.mean(),
        "score_mean": scores_NM.mean(),
        "scorer_grad_norm": optax.tree.norm(scorer_grads),
    }
