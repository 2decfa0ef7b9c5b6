"""Settings of the inner loop (paper, section 2.1): K steps of LoRA on weighted examples."""

import dataclasses
import math

from mass_jax import projections
from mass_jax.config.fields import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class InnerSettings:
    """Settings of the inner loop (paper, section 2.1): K steps of LoRA on weighted examples."""

    inner_optimizer: str = setting(
        "sgd",
        "Optimizer of the inner loop: a name of optax or optax.contrib, with arguments, such as adamw(b1=0.8) or "
        "sgd(cosine_decay_schedule(0.2, 4)); a chain of several, separated by vertical bars; or module:function or "
        "file.py:function of your own code.",
    )
    inner_lr: float = setting(
        0.2, "Learning rate of the inner optimizer, unless --inner_optimizer gives one.", minimum=0
    )
    inner_eps_root: str = setting(
        "auto",
        "Constant added under the root of Adam's second moment (adam, adamw and the like), unless --inner_optimizer "
        "gives eps_root. It decides how smooth the "
        "update and thus the reward is: auto chooses it from the scale of the gradient, or give a number; "
        "experiments.validate measures which value carries signal.",
    )
    learn: str = setting(
        "",
        "Hyperparameters of the inner optimizer that meta-training learns, separated by commas: inner_lr, or numeric "
        "arguments of the expression, such as b1 of adam(b1=0.9); nothing by default.",
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

    half_products: bool = setting(
        False,
        "Round the operands of products with weights and adapters to bfloat16 and sum in float32, in every mode of "
        "differentiation. Weights and adapters themselves stay as they are. Faster on a CPU with AMX; not measured on "
        "other devices.",
    )

    adapter_product_dtype: str = setting(
        "float32",
        "Data type of the operands of products with adapters, in every mode of differentiation. bfloat16 splits each "
        "adapter into two bfloat16 terms and needs activations in bfloat16; sums and adapters stay float32.",
        choices=("float32", "bfloat16"),
    )

    @property
    def given_eps_root(self) -> float | None:
        """The parsed value of `inner_eps_root`; None for auto.

        Raises:
            ValueError: it is neither auto nor a positive number; with 0, gradients of 0 have a NaN meta-gradient.

        >>> InnerSettings(inner_eps_root="1e-6").given_eps_root
        1e-06
        """
        if self.inner_eps_root == "auto":
            return None
        try:
            value = float(self.inner_eps_root)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise ValueError(f"--inner_eps_root={self.inner_eps_root!r} is unknown; use auto or a positive number")
        return value
