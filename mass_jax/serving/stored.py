"""Settings of a workdir, which may be somebody else's: code that they name runs only if the user names it again."""

import dataclasses
import pathlib
import shlex

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
        replaced["inner_optimizer"] = _trusted_inner(stored, given, workdir)
    elif stored == CUSTOM or own_code(stored):
        replaced |= {"inner_optimizer": usual.inner_optimizer, "learn": usual.learn}
    return dataclasses.replace(config, **replaced)


def _trusted_inner(stored: str, given: str | None, workdir: pathlib.Path) -> str:
    """Returns the inner optimizer to build: the stored one, or that of the command line if the stored one is code."""
    if given is None:
        if own_code(stored):
            raise CodeNotNamed(
                f"the settings in {workdir} name code to run; pass --inner_optimizer={shlex.quote(stored)} if you "
                f"trust it"
            )
        return stored
    if given in (stored, CUSTOM):
        return given
    if stored != CUSTOM and not (own_code(stored) and own_code(given)):
        fix = "pass that" if own_code(stored) else "omit the flag, or pass that"
        raise UserError(f"--inner_optimizer={given}: the run in {workdir} has --inner_optimizer={stored}; {fix}")
    logging.warning("adapting with --inner_optimizer=%s; the run was trained with --inner_optimizer=%s", given, stored)
    return given


def trusted_task(stored: str, given: str | None, workdir: pathlib.Path) -> str:
    """Returns the task to open: the stored one, or that of the command line if the stored one names code.

    Args:
        stored: the task of the run.
        given: the task, named again.
        workdir: directory of the run, for messages.

    Raises:
        UserError: the stored task names code and was not named, or another one was.
    """
    if given is None:
        if names_code(stored):
            raise UserError(f"the settings in {workdir} name code to run; pass --task={stored} if you trust it")
        return stored
    if given != stored:
        if not names_code(stored) or not names_code(given):
            raise UserError(f"--task={given}: the run in {workdir} has --task={stored}; omit the flag, or pass that")
        logging.warning("opening --task=%s; the run was trained with --task=%s", given, stored)
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
