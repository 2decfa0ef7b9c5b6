"""Checks the inner optimizer before training, which differentiates through its steps."""

import functools
import math
import warnings
from typing import Any

from absl import logging

from mass_jax import metagrad as mg
from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.metagrad.guard import GRADIENT_SCALE
from mass_jax.method import adapt
from mass_jax.training.eps_root import FACTOR


def check_inner_optimizer(config: Config, loop: adapt.LoraLoop) -> None:
    """Runs `mg.check_optimizer` at the number of inner steps of a run, once per optimizer.

    Logs a warning if the optimizer is scale-invariant, unless --on_weak_signal=ignore.

    Args:
        config: the settings of the run.
        loop: its inner loop.

    Raises:
        UserError: the meta-gradient through the optimizer would be NaN, zero or wrong; one line with the fix.
    """
    measured = adapt.measures_eps_root(config.inner_optimizer, config.given_eps_root)
    scale = math.sqrt(loop.eps_root) / FACTOR if measured else GRADIENT_SCALE
    _check(loop.optimizer, loop.num_steps, scale, config.inner_optimizer, config.on_weak_signal != "ignore")


@functools.cache
def _check(optimizer: Any, num_steps: int, scale: float, text: str, warn: bool) -> None:
    """Checks an optimizer and logs its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", mg.ScaleInvariantWarning)
        try:
            mg.check_optimizer(optimizer, num_steps=num_steps, gradient_scale=scale)
        except UserError as error:
            raise UserError(f"--inner_optimizer={text!r} with --inner_steps={num_steps}: {error}") from error
    for each in caught if warn and runtime.is_first() else ():
        logging.warning("--inner_optimizer=%r: %s", text, each.message)
