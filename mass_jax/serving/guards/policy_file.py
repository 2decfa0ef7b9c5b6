"""The policy file's format, checked by pydantic.

Every key is required. Unknown keys and values of another type are refused, without conversion.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic

from mass_jax.config import nearest
from mass_jax.errors import UserError
from mass_jax.serving.guards.bounds import UpdateLimits
from mass_jax.serving.guards.policy import Amount, Count, Permission, Policy, short
from mass_jax.serving.guards.regression import Tolerance

_Names = Annotated[list[str], pydantic.Field(min_length=1)]


class _Strict(pydantic.BaseModel):
    """Base of the file's objects: no conversions, no unknown keys, no NaN or infinity."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _PermissionFile(_Strict):
    users: _Names
    tasks: _Names
    tokens_per_question: Count
    questions_per_hour: Count
    tokens_per_hour: Count


class _LimitsFile(_Strict):
    steps: Count
    learning_rate: Amount
    relative_norm: Amount
    loss_ratio: Amount
    excess: str


class _RegressionFile(_Strict):
    accuracy_drop: Amount
    nll_rise: Amount


class _PolicyFile(_Strict):
    version: Literal[1]
    rules: Annotated[list[_PermissionFile], pydantic.Field(min_length=1)]
    gates: dict[str, dict[str, Any]]
    min_examples: Count
    real_share: Amount
    limits: _LimitsFile
    regression: _RegressionFile


def read_policy(path: pathlib.Path) -> Policy:
    """Reads a policy file; every key is required, unknown keys and other types are refused.

    Args:
        path: JSON file in the format of `Policy.to_json`.

    Raises:
        UserError: the file is missing or invalid; the message names file, key, value and fix.
    """
    fix = "`python -m experiments.audit policy` prints one to start from"
    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_no_repeats)
    except FileNotFoundError:
        raise UserError(f"policy {path} does not exist, and without one nothing is adapted; {fix}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"policy {path} cannot be read ({error}), so nothing is adapted; {fix}") from None
    try:
        _PolicyFile.model_validate(data)
        return _policy(data)
    except pydantic.ValidationError as error:
        reason = _explain(error.errors(include_url=False, include_context=False)[0])
    except UserError as error:
        reason = str(error)
    raise UserError(f"policy {path}: {reason}; nothing is adapted; {fix}")


def _policy(data: Mapping[str, Any]) -> Policy:
    """The policy of a validated file. Numbers keep their spelling (1 or 1.0), on which the policy's hash depends."""
    rules = (rule | {"users": tuple(rule["users"]), "tasks": tuple(rule["tasks"])} for rule in data["rules"])
    return Policy(
        rules=tuple(Permission(**rule) for rule in rules),
        gates=data["gates"],
        min_examples=data["min_examples"],
        real_share=data["real_share"],
        limits=UpdateLimits(**data["limits"]),
        regression=Tolerance(**data["regression"]),
    )


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is repeated")
    return dict(pairs)


_EXPECTED = {
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number of 0 or more",
    "greater_than_equal": "0 or more",
    "int_type": "a whole number of 0 or more",
    "list_type": "a list that is not empty",
    "literal_error": "1",
    "model_type": "an object",
    "string_type": "a string",
    "too_short": "a list that is not empty",
}


def _explain(error: Any) -> str:
    """One line for a validation error of pydantic."""
    *parents, last = error["loc"] or ("policy",)
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in error["loc"])
    where = where.lstrip(".") or "policy"
    if error["type"] == "missing":
        return f"{where} is missing; add it"
    if error["type"] == "extra_forbidden":
        return f"{where} is an unknown key; {nearest(str(last), _siblings(parents))}"
    expected = _EXPECTED.get(error["type"])
    problem = f"must be {expected}" if expected else f"is invalid ({error['msg']})"
    return f"{where}={short(error['input'])} {problem}"


def _key(name: str) -> str:
    """A key from the file, printable on one line."""
    return name if name.isidentifier() else ascii(name)[:60]


def _siblings(parents: Sequence[int | str]) -> list[str]:
    """Keys of the object at this place in a policy file."""
    node = json.loads(Policy().to_json())
    for part in parents:
        node = node[0 if isinstance(part, int) else part]
    return list(node)
