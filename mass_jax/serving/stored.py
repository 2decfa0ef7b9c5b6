"""Settings of a workdir, which may be somebody else's: code that they name runs only if the user names it again."""

import dataclasses
import pathlib
import shlex
from collections.abc import Callable

from absl import logging

from mass_jax import strict_json
from mass_jax.config import Config, names_code
from mass_jax.config.config import OPTIMIZERS
from mass_jax.errors import UserError
from mass_jax.expression import CUSTOM
from mass_jax.own_function import CodeNotNamed, own_code


def parse(text: str) -> Config:
    """Parses the settings of a run; `trusted_optimizers` decides which of their optimizers may be built.

    Raises:
        ValueError, TypeError: the text is not a JSON object of valid settings.
    """
    read = strict_json.loads(text)
    return Config.from_json(text, [str(read.get(name)) for name in OPTIMIZERS] if isinstance(read, dict) else ())


def trusted_optimizers(config: Config, workdir: pathlib.Path, given: str | None, adapts: bool = True) -> Config:
    """Returns settings whose optimizers run no code that the user did not name.

    Outer optimizers of own code become their defaults, since only training needs them.

    Args:
        config: the stored settings.
        workdir: their directory, for messages.
        given: the inner optimizer, named again; "custom" for one that the caller has.
        adapts: False if nothing will be adapted; own inner optimizers then become the default as well, and the
            hyperparameters that the run learned are left out.

    Raises:
        CodeNotNamed: the inner optimizer is own code and was not named.
        UserError: another one was named than the run has.
    """
    usual = Config()
    replaced = {name: getattr(usual, name) for name in OPTIMIZERS if own_code(getattr(config, name))}
    stored = config.inner_optimizer
    if adapts:
        # An optimizer that the caller has in Python takes the place of any, and any of one that was passed so.
        passed = given == CUSTOM or (stored == CUSTOM and given is not None)
        replaced["inner_optimizer"] = given if passed else _trusted("inner_optimizer", stored, given, workdir, own_code)
    elif stored == CUSTOM or own_code(stored):
        replaced |= {"inner_optimizer": usual.inner_optimizer, "learn": usual.learn}
    return dataclasses.replace(config, **replaced)


def trusted_task(stored: str, given: str | None, workdir: pathlib.Path) -> str:
    """Returns the task to open: the stored one, or that of the command line if the stored one names code.

    Args:
        stored: the task of the run.
        given: the task, named again.
        workdir: directory of the run, for messages.

    Raises:
        CodeNotNamed: the stored task is own code and was not named.
        UserError: another one was named.
    """
    return _trusted("task", stored, given, workdir, names_code)


def _trusted(flag: str, stored: str, given: str | None, workdir: pathlib.Path, is_code: Callable[[str], object]) -> str:
    """Returns the stored value of a flag, or the given one if both are code: the code may have moved."""
    if given is None:
        if is_code(stored):
            raise CodeNotNamed(
                f"the settings in {workdir} name code to run; pass --{flag}={shlex.quote(stored)} if you trust it"
            )
        return stored
    if given == stored:
        return given
    if not (is_code(stored) and is_code(given)):
        fix = "pass that" if is_code(stored) else "omit the flag, or pass that"
        raise UserError(f"--{flag}={given}: the run in {workdir} has --{flag}={stored}; {fix}")
    logging.warning("opening with --%s=%s; the run was trained with --%s=%s", flag, given, flag, stored)
    return given


def given_optimizer(text: str) -> str:
    """Returns an inner optimizer that the user named, checked and with absolute paths.

    Raises:
        UserError: the expression is invalid; one line that names the flag.
    """
    try:
        return Config(inner_optimizer=text).located().inner_optimizer
    except ValueError as error:
        raise UserError(str(error)) from None
