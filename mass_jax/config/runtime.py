"""Settings that change how a run is executed."""

import dataclasses

from mass_jax.config.fields import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """Settings that change how a run is executed."""

    eval_batch: int = setting(100, "Number of problems per evaluation batch.", minimum=1)
    checkpoint_every: int = setting(20, "Number of training steps between checkpoints.", minimum=1)
    max_skipped_steps: int = setting(
        5, "Stop the run after this many consecutive steps were skipped because of non-finite gradients.", minimum=1
    )
