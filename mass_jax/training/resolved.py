"""Settings in which every optimizer is resolved: the functions of optax with all arguments that the run gives them."""

import dataclasses
from typing import Any

from mass_jax.config import Config
from mass_jax.config.config import OPTIMIZERS
from mass_jax.errors import UserError
from mass_jax.expression import AUTO, CUSTOM
from mass_jax.metagrad import building
from mass_jax.method import adapt, outer_optimizer
from mass_jax.training.learners import outer_settings


def resolved(config: Config) -> Config:
    """Returns equivalent settings in which the optimizers have all their arguments, with the schedules of the run.

    The value of --inner_eps_root=auto, or of eps_root=auto in the expression, is measured at the start of a run; here
    it stays `auto`.

    Raises:
        UserError: an optimizer is rejected or lacks an argument; one line with the flag, the position and the fix.

    >>> resolved(Config(inner_optimizer="clip(1.0) | adam", inner_lr=0.03)).inner_optimizer
    'clip(max_delta=1.0) | adam(learning_rate=0.03, eps_root=auto)'
    """
    found: dict[str, Any] = {}
    for name in OPTIMIZERS:
        text = getattr(config, name)
        try:
            if name != "inner_optimizer":
                found[name] = str(outer_optimizer.resolve(*outer_settings(config, name)))
            elif text != CUSTOM:
                measured = adapt.measures_eps_root(text, config.given_eps_root)  # for every part of the expression
                eps_root = AUTO if measured else config.given_eps_root
                found[name] = str(building.resolve(text, config.inner_lr, eps_root))
        except UserError as error:
            raise UserError(f"--{name}={text!r}: {error}") from error
    return dataclasses.replace(config, **found)
