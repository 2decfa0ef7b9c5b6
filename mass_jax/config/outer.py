"""Settings of the outer loop (paper, sections 2.2 and 2.3): rewards, the generator and the scorer."""

import dataclasses
import math
from typing import Literal

from mass_jax.config.fields import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class OuterSettings:
    """Settings of the outer loop (paper, sections 2.2 and 2.3): rewards, the generator and the scorer."""

    outer: str = setting(
        "both",
        "Outer loss: gold solutions (trains mass_gold), verified attempts (trains mass), or both, one after the other.",
        choices=("gold", "verifier", "both"),
    )
    steps: int = setting(120, "Number of meta-training steps, warm-up included.", minimum=1)
    warmup_steps: int = setting(20, "Number of first steps that update only the scorer.", minimum=0)
    tasks_per_step: int = setting(16, "Number of problems per meta-training step.", minimum=1)
    generator: str = setting(
        "full",
        "Trained parameters of the generator: all of the model, or a LoRA adapter on a frozen model.",
        choices=("full", "lora"),
    )
    generator_lora_rank: int = setting(16, "Rank of the generator's LoRA adapter for --generator=lora.", minimum=1)
    generator_lora_blocks: int = setting(
        0,
        "Number of last transformer blocks with the generator's LoRA adapter; 0 means all. Earlier blocks need no "
        "backward pass.",
        minimum=0,
    )
    policy_optimizer: str = setting(
        "adam",
        "Optimizer of the generator, after clipping by --grad_clip; takes the same expressions as --inner_optimizer.",
    )
    generator_lr: float = setting(
        3e-4, "Learning rate of the generator's optimizer, unless --policy_optimizer gives one.", minimum=0
    )
    lr_schedule: str = setting(
        "linear",
        "Learning rate of the generator after the warm-up: linear decay to 0, or constant; for --generator_lr only.",
        choices=("linear", "constant"),
    )
    reward: str = setting(
        "marginal",
        "Reward of an example: marginal effect of its weight (the paper), its share in the gain of the "
        "adaptation (path), effect of leaving it out, or marginal effect plus the gain of its group.",
        choices=("marginal", "path", "leave_one_out", "gain"),
    )
    path_points: int = setting(
        3, "Number of quadrature points of --reward=path; each costs one meta-gradient.", minimum=1
    )
    rejected_reward: str = setting(
        "worst",
        "Reward of text that does not parse, copies the target or is cut off: worst (below every accepted example "
        "of its group), zero (the paper), or a number in nats.",
    )
    kl_coef: float = setting(
        0.0,
        "Weight of the KL divergence from the generator before training, on the generated examples, in its loss.",
        minimum=0,
    )
    drift_every: int = setting(
        1, "Interval, in steps, at which that KL divergence is logged as kl_to_start; 0 turns it off.", minimum=0
    )
    gamma: float = setting(0.1, "Weight of L_solve in the generator's loss L_aux + gamma * L_solve.", minimum=0)
    clip_ratio: float = setting(
        0.2, "Clip range of the policy ratio: it is clipped to 1 - clip_ratio .. 1 + clip_ratio.", minimum=0
    )
    ratio_level: str = setting(
        "sequence", "Unit of the policy ratio: whole completions or single tokens.", choices=("sequence", "token")
    )
    advantage_eps: float = setting(
        0.01, "Constant added to the standard deviation of rewards that advantages are divided by.", minimum=0
    )
    grad_clip: float = setting(1.0, "Maximum global norm of outer gradients; larger ones are scaled down.", minimum=0)
    scorer_optimizer: str = setting(
        "adam",
        "Optimizer of the scorer, after clipping by --grad_clip; takes the same expressions as --inner_optimizer.",
    )
    scorer_lr: float = setting(
        3e-3, "Learning rate of the scorer's optimizer, unless --scorer_optimizer gives one.", minimum=0
    )
    learn_optimizer: str = setting(
        "adam(0.01)",
        "Optimizer of the hyperparameters of --learn, which are logarithms (logits for decay rates such as b1); takes "
        "the same expressions as --inner_optimizer.",
    )
    scorer_layers: int = setting(1, "Number of transformer blocks in the scorer's trunk.", minimum=1)
    scorer_width: int = setting(32, "Hidden size of the scorer's trunk.", minimum=8)
    on_weak_signal: str = setting(
        "warn",
        "What to do if the rewards of the first steps do not predict the effect of the examples: warn, stop with an "
        "error, or ignore (no check).",
        choices=("warn", "error", "ignore"),
    )
    signal_every: int = setting(
        0,
        "Number of steps between comparisons of rewards with leave-one-out, logged as signal/*; 0 means never.",
        minimum=0,
    )
    scorer_baseline: str = setting(
        "none",
        "Baseline of the meta-gradient that trains the scorer: none (the paper), or group, the mean over the parsed "
        "examples of the problem.",
        choices=("none", "group"),
    )
    solver_grpo_optimizer: str = setting(
        "adam",
        "Optimizer of the Solver GRPO baseline, after clipping by --grad_clip; takes the same expressions as "
        "--inner_optimizer.",
    )
    solver_grpo_lr: float = setting(
        1e-3,
        "Learning rate of the Solver GRPO baseline's optimizer, unless --solver_grpo_optimizer gives one.",
        minimum=0,
    )

    @property
    def rejected_value(self) -> float | Literal["worst"]:
        """The parsed value of `rejected_reward`.

        Raises:
            ValueError: it is neither worst, zero nor a finite number.

        >>> OuterSettings(rejected_reward="zero").rejected_value
        0.0
        """
        if self.rejected_reward == "worst":
            return "worst"
        try:
            value = 0.0 if self.rejected_reward == "zero" else float(self.rejected_reward)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(
                f"--rejected_reward={self.rejected_reward!r} is unknown; use worst, zero or a finite number of nats"
            )
        return value
