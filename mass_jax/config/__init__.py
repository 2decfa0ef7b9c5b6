"""Settings of a run: `Config`, whose fields are also the flags of the commands in `experiments/`."""

from mass_jax.config.config import Config, completed, differences, expand_user
from mass_jax.config.fields import names_code, nearest

__all__ = ["Config", "completed", "differences", "expand_user", "names_code", "nearest"]
