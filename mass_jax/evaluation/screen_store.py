"""Results of a screen on disk: one JSON file per family, which a rerun with the same settings reads."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from mass_jax import runtime
from mass_jax.config import completed, differences
from mass_jax.errors import UserError

FREE = (
    "families_test",
    "families_train",
    "num_eval_problems",
    "num_train_problems",
    "reasoning_test",
    "reasoning_train",
)
"""Settings that may differ, since they only choose the families."""


def path_of(workdir: pathlib.Path, family: str) -> pathlib.Path:
    """Returns the file of a family.

    >>> path_of(pathlib.Path("run"), "ax = c").name
    'ax_=_c.json'
    """
    return workdir / "families" / f"{family.replace('/', '_').replace(' ', '_')}.json"


def write_family(path: pathlib.Path, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Writes the result of a family with the settings under which it was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    runtime.write_atomically(path, json.dumps({"settings": settings, "result": result}, indent=1))


def read_family(path: pathlib.Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads the result of a family; None if it is not measured yet.

    Args:
        path: the file.
        settings: the plan of the screen, and the settings of the run as "config".

    Raises:
        UserError: If the file is damaged, or was measured with other settings, of which the message names the first.
    """
    if not path.exists():
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        before, result = _compared(saved["settings"]), dict[str, Any](saved["result"])
        _ = result["cells"], result["best"], result["best_gain"], result["seconds"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged; remove it, or give another --workdir") from None
    for name, (old, new) in differences(before, _compared(settings)).items():
        raise UserError(
            f"{path} was measured with other settings: {name}={old!r}, now it is {new!r}; give another --workdir"
        )
    return result


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what must not differ; what was added since the file was written counts as unchanged at its default."""
    config = {name: value for name, value in completed(settings["config"]).items() if name not in FREE}
    return {"controls": False, **settings, "config": config}
