"""Builds the learners of meta-training and of the baselines that train the solver from a `Config`."""

import optax

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.llama import Llama
from mass_jax.method import meta_step, objective, outer_optimizer, policy_gradient, rejected, rewards
from mass_jax.method.adapt import LoraLoop
from mass_jax.method.models import Solver
from mass_jax.method.solver_grpo import SolverGrpo
from mass_jax.method.solver_sft import SolverSft

LEARN_RATE = 0.01  # where --learn_optimizer gives no learning rate


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
        policy_optimizer=_optimizer(config, "policy_optimizer"),
        scorer_optimizer=_optimizer(config, "scorer_optimizer"),
        warmup_steps=config.warmup_steps,
        shuffle_rewards=control == "shuffled",
        reward=rewards.make_reward(config.reward, config.path_points),
        rejected_reward=rejected.RejectedReward(config.rejected_value, config.advantage_eps),
        scorer_baseline="group" if config.scorer_baseline == "group" else "none",
        inner_optimizer=_optimizer(config, "learn_optimizer") if config.learn else None,
    )


def grpo_learner(config: Config, solver: Solver) -> SolverGrpo:
    """Returns the learner of the Solver GRPO baseline, whose learning rate is constant because that works better."""
    optimizer = _optimizer(config, "solver_grpo_optimizer")
    return SolverGrpo(surrogate(config, solver), config.max_answer_tokens, optimizer)


def sft_learner(config: Config, solver: Solver) -> SolverSft:
    """Returns the learner of the Solver SFT baseline, with the optimizer that MASS trains the generator with."""
    return SolverSft(surrogate(config, solver), config.gamma, _optimizer(config, "policy_optimizer"))


def outer_settings(config: Config, name: str) -> tuple[str, float, int | None]:
    """Returns the expression of an outer optimizer, its learning rate, and the steps of its linear decay.

    Args:
        config: the settings.
        name: "policy_optimizer", "scorer_optimizer", "solver_grpo_optimizer" or "learn_optimizer".
    """
    decay = config.steps - config.warmup_steps if config.lr_schedule == "linear" else None
    return {
        "policy_optimizer": (config.policy_optimizer, config.generator_lr, decay),
        "scorer_optimizer": (config.scorer_optimizer, config.scorer_lr, None),
        "solver_grpo_optimizer": (config.solver_grpo_optimizer, config.solver_grpo_lr, None),
        "learn_optimizer": (config.learn_optimizer, LEARN_RATE, None),
    }[name]


def _optimizer(config: Config, name: str) -> optax.GradientTransformation:
    """Builds an outer optimizer."""
    text, rate, decay = outer_settings(config, name)
    try:
        return outer_optimizer.make(rate, config.grad_clip, decay, text)
    except UserError as error:
        raise UserError(f"--{name}={text!r}: {error}") from error


def check_outer_optimizers(config: Config) -> None:
    """Builds every outer optimizer.

    Raises:
        UserError: one cannot be built or used; one line that names the flag.
    """
    for name in ("policy_optimizer", "scorer_optimizer", "solver_grpo_optimizer", "learn_optimizer"):
        _optimizer(config, name)


def surrogate(config: Config, solver: Solver) -> objective.Surrogate:
    """Returns the clipped surrogate loss that both learners use."""
    level: policy_gradient.RatioLevel = "token" if config.ratio_level == "token" else "sequence"
    return objective.Surrogate(
        solver, config.clip_ratio, config.advantage_eps, level, config.sampler_ratio_cap, config.tasks_at_a_time
    )
