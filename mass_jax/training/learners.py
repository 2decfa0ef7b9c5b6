"""Builds the learners of meta-training and of the Solver GRPO baseline from a `Config`."""

from mass_jax.config import Config
from mass_jax.llama import Llama
from mass_jax.method import meta_step, objective, outer_optimizer, policy_gradient, rejected, rewards, solver_grpo
from mass_jax.method.adapt import LoraLoop
from mass_jax.method.models import Solver


def mass_learner(
    config: Config, loop: LoraLoop, scorer: Llama, outer: str, control: str | None = None
) -> meta_step.Learner:
    """Returns the learner of MASS.

    Args:
        config: the settings.
        loop: inner loop, with the solver and the adjoint.
        scorer: the scorer's trunk.
        outer: outer loss, "gold" or "verifier".
        control: None, "shuffled" (rewards permuted within each problem) or "unrewarded" (no reward for the generator).
    """
    decay = config.steps - config.warmup_steps if config.lr_schedule == "linear" else None
    return meta_step.Learner(
        loop=loop,
        scorer=scorer,
        objective=objective.GeneratorObjective(
            surrogate(config, loop.solver),
            config.max_example_tokens,
            config.max_answer_tokens,
            gold=outer == "gold",
            gamma=config.gamma,
            kl_coef=config.kl_coef,
            reward_examples=control != "unrewarded",
        ),
        policy_optimizer=outer_optimizer.make(config.generator_lr, config.grad_clip, decay),
        scorer_optimizer=outer_optimizer.make(config.scorer_lr, config.grad_clip),
        warmup_steps=config.warmup_steps,
        shuffle_rewards=control == "shuffled",
        reward=rewards.make_reward(config.reward, config.path_points),
        rejected_reward=rejected.RejectedReward(config.rejected_value, config.advantage_eps),
        scorer_baseline="group" if config.scorer_baseline == "group" else "none",
    )


def grpo_learner(config: Config, solver: Solver) -> solver_grpo.SolverGrpo:
    """Returns the learner of the Solver GRPO baseline, whose learning rate is constant because that works better."""
    optimizer = outer_optimizer.make(config.solver_grpo_lr, config.grad_clip)
    return solver_grpo.SolverGrpo(surrogate(config, solver), config.max_answer_tokens, optimizer)


def surrogate(config: Config, solver: Solver) -> objective.Surrogate:
    """Returns the clipped surrogate loss that both learners use."""
    level: policy_gradient.RatioLevel = "token" if config.ratio_level == "token" else "sequence"
    return objective.Surrogate(
        solver, config.clip_ratio, config.advantage_eps, level, config.sampler_ratio_cap, config.tasks_at_a_time
    )
