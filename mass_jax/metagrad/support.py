"""Measures for all optax optimizers and transformations at which K their meta-gradient is exact.

`python -m mass_jax.metagrad.support` prints the table as a Markdown page. Shape suffixes: K inner steps.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax

from mass_jax.errors import UserError
from mass_jax.metagrad import guard
from mass_jax.metagrad.optimizers import SUPPORT
from mass_jax.optax_functions import transformations

# Values for arguments without a default, by name.
_ARGUMENTS: Mapping[str, Any] = {
    "learning_rate": 1e-2,
    "step_size": -1e-2,
    "step_size_fn": lambda count: -1e-2,
    "decay": 0.9,
    "max_norm": 1.0,
    "max_delta": 1.0,
    "threshold": 1.0,
    "clipping": 1.0,
    "k": 2,
    "max_consecutive_errors": 2,
    "should_transform_fn": lambda step: step >= 0,
    "mask": False,
    "freeze_mask": False,
    "eta": 0.01,
    "gamma": 0.5,
    "key": 0,
    "measure": lambda updates: updates,
    "measure_name": "gradient",
    "l2_norm_clip": 1.0,
    "noise_multiplier": 0.1,
    "param_labels": {"a": "all", "b": "all"},
    "max_backtracking_steps": 4,
    "max_linesearch_steps": 4,
    "sync_period": 2,
    "slow_step_size": 0.5,
    "seed": 0,
    "f": lambda updates, params: updates,
}
_INNER = ("inner", "optimizer", "adv_optimizer", "base_optimizer", "fast_optimizer", "tx")


class SupportRow(NamedTuple):
    """Row of the support table.

    Attributes:
        name: name of the optax function, such as "contrib.muon".
        settings: optional keyword arguments, taken from `SUPPORT`.
        verdicts: "exact" or the fault, for each K.
    """

    name: str
    settings: Mapping[str, Any]
    verdicts: Mapping[int, str]

    @property
    def exact(self) -> bool:
        """True if the meta-gradient is exact at every K."""
        return all(verdict == "exact" for verdict in self.verdicts.values())


def factories() -> dict[str, Any]:
    """Returns the public functions of optax and optax.contrib that build gradient transformations, by name.

    >>> "adam" in factories() and "contrib.muon" in factories()
    True
    """
    return transformations()


def build(name: str) -> Any:
    """Builds a transformation by name with required arguments and the settings of `SUPPORT`."""
    function = factories()[name]
    settings = dict(SUPPORT[name].settings) if name in SUPPORT else {}
    if name in ("chain", "named_chain"):
        return function(optax.sgd(1e-2)) if name == "chain" else function(("sgd", optax.sgd(1e-2)))
    if name == "stateless_with_tree_map":
        return function(lambda update, param: update)
    if name in ("inject_hyperparams", "inject_stateful_hyperparams"):
        return function(optax.sgd)(learning_rate=1e-2)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.name in _INNER:
            settings[parameter.name] = optax.sgd(1e-2)
        elif parameter.name == "transforms":
            settings["transforms"] = {"all": optax.sgd(1e-2)}
        elif parameter.name in _ARGUMENTS:
            settings[parameter.name] = _ARGUMENTS[parameter.name]
        else:
            raise UserError(f"needs an argument {parameter.name}, for which the table has no value")
    return function(**settings)


def support_table(num_steps: Sequence[int] = (1, 2, 3, 5), names: Sequence[str] | None = None) -> list[SupportRow]:
    """Checks optax optimizers and transformations as `check_optimizer` does, at several K.

    Args:
        num_steps: numbers of inner steps K.
        names: names of `factories()`; None checks all, which takes minutes.

    Returns:
        One row per name.

    >>> [row.verdicts for row in support_table((1, 3), ["sgd", "lion"])]
    [{1: 'exact', 3: 'exact'}, {1: 'identically zero', 3: 'identically zero'}]
    """
    return [_row(name, num_steps) for name in (sorted(factories()) if names is None else names)]


def _row(name: str, num_steps: Sequence[int]) -> SupportRow:
    settings = SUPPORT[name].settings if name in SUPPORT else {}
    try:
        with jax.enable_x64(True):
            optimizer = build(name)
        faults = {fault.num_steps: fault.text for fault in guard.find_faults(optimizer, num_steps)}
    except UserError as error:
        reason = str(error).split("; ")[0].split(", but")[0].removeprefix("the optimizer's ")
        faults = dict.fromkeys(num_steps, f"rejected: {reason}")
    verdicts = {count: faults.get(count, "exact") for count in num_steps}
    prefix = "the meta-gradient through this optimizer is "
    return SupportRow(name, settings, {count: text.removeprefix(prefix) for count, text in verdicts.items()})


def page(rows: Sequence[SupportRow]) -> str:
    """Formats the table as a Markdown page."""
    counts = ", ".join(map(str, rows[0].verdicts))
    lines = [
        "# Inner optimizers",
        "",
        f"Meta-gradients through the functions of optax {optax.__version__} at K = {counts} inner steps, measured by",
        "`mg.check_optimizer` in two cases: at the start of LoRA, where the gradient of A is 0, and with a gradient",
        "of 0 at every step, as if all examples were rejected. Required arguments have small values; optional settings",
        "are those of `mg.SUPPORT`, which `mg.make_optimizer` applies.",
        "",
        "- exact: finite, not zero, and equal to a finite difference at the zero gradient.",
        "- wrong: contradicted by a finite difference; the update jumps or is far too steep at a zero gradient.",
        "- NaN, identically zero, rejected: as reported by `check_optimizer`.",
        "",
        "Generated by `python -m mass_jax.metagrad.support > docs/reference/optimizers.md`.",
        "",
        "| function | settings | meta-gradient |",
        "|---|---|---|",
    ]
    for row in rows:
        settings = ", ".join(f"{key}={value!r}" for key, value in row.settings.items())
        lines.append(f"| `{row.name}` | {f'`{settings}`' if settings else ''} | {_summary(row)} |")
    return "\n".join(lines) + "\n"


def _summary(row: SupportRow) -> str:
    """Summarizes the verdicts, with the K at which they differ."""
    kinds: dict[str, list[int]] = {}
    for count, text in row.verdicts.items():
        kind = re.sub(r" at \[.*", "", text.split(" (")[0])
        kinds.setdefault(kind, []).append(count)
    if len(kinds) == 1:
        return next(iter(kinds))
    return "; ".join(f"{kind} at K = {', '.join(map(str, counts))}" for kind, counts in kinds.items())


if __name__ == "__main__":
    print(page(support_table((1, 2, 3, 5, 8))), end="")
