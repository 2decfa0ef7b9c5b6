"""What commands share that compare inner optimizers: their flags, and a file of results that a rerun continues."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from absl import flags

from experiments import settings, workdirs
from mass_jax import runtime
from mass_jax.errors import UserError

Result = TypeVar("Result")


def define() -> None:
    """Defines the flags of a run, of its machine, and of the problems and settings to measure."""
    settings.define()
    settings.define_mesh()
    settings.define_compilation_cache()
    workdirs.define("Directory for the results; rerun with the same directory to resume.")
    flags.DEFINE_string(
        "settings", "", "Inner optimizers to compare, separated by semicolons: OPTIMIZER:RATE[:EPS_ROOT[:STEPS]]."
    )
    flags.DEFINE_integer("problems", 16, "Number of training problems.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Random seed of the problems, the examples, the adapters and any noise.")
    flags.DEFINE_float("score", 0.5, "Weight of every accepted example in the inner loss.", lower_bound=0)


def read(path: pathlib.Path, header: Mapping[str, Any], parse: Callable[[Any], Result]) -> dict[str, Result]:
    """Returns the results of an earlier run of the same measurement, by setting.

    Args:
        path: the file; without it there are no results.
        header: what the measurement depends on besides the inner optimizer.
        parse: reads one result; may raise ValueError, KeyError, TypeError or AttributeError.

    Raises:
        UserError: the file belongs to another measurement or is damaged.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        results = {label: parse(row) for label, row in found.pop("settings").items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; remove it, or give another --workdir") from None
    for name, (before, now) in differences(found, header).items():
        raise UserError(f"{path} was measured with {name}={before!r}, now it is {now!r}; give another --workdir")
    return results


def write(path: pathlib.Path, header: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """Writes a file that `read` reads, with one row of JSON values by setting."""
    runtime.write_atomically(path, json.dumps({**header, "settings": rows}) + "\n")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the values that differ between two headers, and within their settings, by name.

    >>> differences({"seed": 0, "config": {"gamma": 1, "steps": 3}}, {"seed": 0, "config": {"gamma": 1, "steps": 4}})
    {'steps': (3, 4)}
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found |= differences(old, new)
        elif old != new:
            found[name] = (old, new)
    return found
