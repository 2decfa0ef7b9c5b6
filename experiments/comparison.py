"""What commands share that compare inner optimizers: their flags, and a file of results that a rerun continues."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from absl import flags

from experiments import settings, workdirs
from mass_jax import runtime
from mass_jax.config import Config, completed, differences
from mass_jax.errors import UserError
from mass_jax.method import adapt
from mass_jax.training.components import Components
from mass_jax.training.eps_root import auto_eps_root
from mass_jax.training.inner_setting import with_setting

Result = TypeVar("Result")


def define() -> None:
    """Defines the flags of a run, of its machine, and of the problems and settings to measure."""
    settings.define()
    settings.define_mesh()
    settings.define_compilation_cache()
    workdirs.define("Directory for the results; rerun with the same directory to resume.")
    for module in (settings, workdirs):
        flags.adopt_module_key_flags(module)  # the command adopts them from here, to list them in its --help
    flags.DEFINE_string(
        "settings", "", "Inner optimizers to compare, separated by semicolons: OPTIMIZER:RATE[:EPS_ROOT[:STEPS]]."
    )
    flags.DEFINE_integer("problems", 16, "Number of training problems.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Random seed of the problems, the examples, the adapters and any noise.")
    flags.DEFINE_float("score", 0.5, "Weight of every accepted example in the inner loss.", lower_bound=0)


def read_settings(config: Config) -> list[str]:
    """Returns the inner optimizers of --settings, after a check that names errors before the model is loaded.

    Args:
        config: the settings of the run, which fill missing values.

    Raises:
        UserError: An inner optimizer has another form, or a value is invalid.
    """
    texts = [text for text in flags.FLAGS.settings.split(";") if text.strip()]
    for text in texts:
        with_setting(text, config)
    return texts


def check_marginal(config: Config) -> None:
    """Raises a ValueError if the reward is not the meta-gradient, which is all that a command measures."""
    if config.reward != "marginal":
        raise ValueError(
            f"--reward={config.reward} is not measured: this command computes meta-gradients, which are the marginal "
            f"reward; leave it out, or use experiments.validate"
        )


def auto_of(components: Components) -> float:
    """Returns the eps_root of auto as in training: with pretrained weights, on problems of the run's first seed."""
    config, rollouts = components.config, components.rollouts
    if adapt.measures_eps_root(config.inner_optimizer, config.given_eps_root):
        return rollouts.loop.eps_root  # measured when the model was loaded
    problems = components.problems(config.seeds[0]).train
    return auto_eps_root(rollouts, components.pretrained(), problems, config.num_test_examples)


def read(path: pathlib.Path, header: Mapping[str, Any], parse: Callable[[Any], Result]) -> dict[str, Result]:
    """Returns the results of an earlier run of the same measurement, by setting.

    Args:
        path: the file; without it there are no results.
        header: what the measurement depends on besides the inner optimizer; "config" holds settings of the run. What
            was added to them since the file was written counts as unchanged at its default.
        parse: reads one result; may raise ValueError, KeyError, TypeError or AttributeError.

    Raises:
        UserError: the file belongs to another measurement or is damaged.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        results = {label: parse(row) for label, row in found.pop("settings").items()}
        before, now = ({**one, "config": completed(one["config"])} for one in (found, header))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; remove it, or give another --workdir") from None
    for name, (old, new) in differences(before, now).items():
        raise UserError(f"{path} was measured with {name}={old!r}, now it is {new!r}; give another --workdir")
    return results


def write(path: pathlib.Path, header: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """Writes a file that `read` reads, with one row of JSON values by setting."""
    runtime.write_atomically(path, json.dumps({**header, "settings": rows}) + "\n")
