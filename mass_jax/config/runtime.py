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
    tracker: tuple[str, ...] = setting(
        ("none",),
        "Trackers that get the metrics and the report besides the files of the workdir, separated by commas.",
        choices=("none", "tensorboard", "wandb", "trackio"),
    )

    @property
    def trackers(self) -> tuple[str, ...]:
        """Names in `tracker`, each once; empty for "none".

        Raises:
            ValueError: "none" is combined with others.
        """
        if "none" in self.tracker and len(self.tracker) > 1:
            raise ValueError(f"--tracker={','.join(self.tracker)} combines 'none' with others; remove 'none'")
        return tuple(dict.fromkeys(name for name in self.tracker if name != "none"))
