"""Builds the inner optimizer of a run from a `Config`."""

import optax

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.method import adapt
from mass_jax.method.learned_inner import LearnedInner, learned_names


def fixed_optimizer(config: Config, eps_root: float) -> optax.GradientTransformation:
    """Returns the inner optimizer of --inner_optimizer.

    Raises:
        UserError: it is rejected, or a function in it fails; one line that names the flag.
    """
    try:
        return adapt.fixed_inner_optimizer(config.inner_optimizer, config.inner_lr, eps_root)
    except UserError as error:
        raise UserError(f"--inner_optimizer={config.inner_optimizer!r}: {error}") from error


def learned_inner(config: Config, eps_root: float) -> LearnedInner | None:
    """Returns the inner optimizer as a function of the hyperparameters of --learn; None if there are none.

    Raises:
        UserError: the expression has no such number, or the optimizer was passed from Python.
    """
    names = learned_names(config.learn)
    if not names:
        return None
    learned = LearnedInner(config.inner_optimizer, config.inner_lr, eps_root, names)
    learned.start()  # names errors
    return learned
