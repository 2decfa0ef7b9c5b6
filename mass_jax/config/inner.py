"""Settings of the inner loop (paper, section 2.1): K steps of LoRA on weighted examples."""

import dataclasses

from mass_jax import projections
from mass_jax.config.fields import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class InnerSettings:
    """Settings of the inner loop (paper, section 2.1): K steps of LoRA on weighted examples."""

    inner_optimizer: str = setting("sgd", "Optimizer of the inner loop.", choices=("sgd", "momentum", "adam", "adamw"))
    inner_lr: float = setting(0.2, "Learning rate of the inner optimizer; constant over its steps.", minimum=0)
    inner_eps_root: float = setting(
        1e-8,
        "Constant added under the root of Adam's second moment (adam and adamw). It decides how smooth the update and "
        "thus the reward is: experiments.validate measures which value carries signal.",
        minimum=0,
    )
    inner_steps: int = setting(
        2, "Number of inner steps K; meta-training differentiates through all of them.", minimum=1
    )
    lora_rank: int = setting(4, "Rank of the inner LoRA adapter.", minimum=1)
    lora_alpha: float = setting(4.0, "LoRA alpha; the inner adapter is scaled by alpha / rank.", minimum=0)
    lora_targets: tuple[str, ...] = setting(
        projections.NAMES,
        "Projections with LoRA matrices, separated by commas; all by default.",
        choices=projections.NAMES,
    )
    lora_blocks: int = setting(
        0,
        "Number of last transformer blocks with an inner adapter; 0 means all. Earlier blocks run once for all inner "
        "steps.",
        minimum=0,
    )
    adjoint: str = setting(
        "weighted",
        "How to compute the meta-gradient. All are exact except first_order; weighted is the cheapest exact one.",
        choices=("weighted", "mixed", "reverse", "first_order"),
    )
    remat: str = setting(
        "none",
        "Rematerialization of transformer blocks: none saves all activations, dots saves products with weights, block "
        "recomputes everything.",
        choices=("none", "dots", "block"),
    )
    loss_chunk: int = setting(
        0, "Number of token positions whose logits are held in memory at a time; 0 means all.", minimum=0
    )
    base_dtype: str = setting(
        "float32",
        "Data type of the base weights; adapters and adjoints are always float32.",
        choices=("float32", "bfloat16"),
    )
