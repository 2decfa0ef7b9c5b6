"""The regression suite: texts that an update must not make the model worse at."""

import dataclasses
import importlib.resources
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from mass_jax.errors import UserError
from mass_jax.llama.tokenizer import encode
from mass_jax.method.text import Text, encode_completion, encode_pairs
from mass_jax.runtime import jsonl

MOST_ROWS = 256


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How much worse than before is still accepted.

    Args:
        accuracy_drop: in the share of texts that greedy decoding writes.
        nll_rise: in the mean loss, nats a token.
    """

    accuracy_drop: float = 0.2
    nll_rise: float = 0.1


class Regression(NamedTuple):
    """A suite's result, before and after an update."""

    accuracy_before: float
    accuracy_after: float
    nll_before: float
    nll_after: float


def worse(found: Regression, tolerance: Tolerance) -> str:
    """Why an update is to be rolled back; "" if it is not.

    >>> worse(Regression(0.75, 0.25, 0.3, 0.4), Tolerance())
    'regression: accuracy 0.75 -> 0.25, over the tolerated drop 0.2'
    """
    if not found.accuracy_after >= found.accuracy_before - tolerance.accuracy_drop:
        change = f"accuracy {found.accuracy_before:.3g} -> {found.accuracy_after:.3g}"
        return f"regression: {change}, over the tolerated drop {tolerance.accuracy_drop:g}"
    if not found.nll_after <= found.nll_before + tolerance.nll_rise:
        change = f"loss {found.nll_before:.3g} -> {found.nll_after:.3g} nats a token"
        return f"regression: {change}, over the tolerated rise {tolerance.nll_rise:g}"
    return ""


def read_suite(path: pathlib.Path | None, directory: pathlib.Path, task: Any) -> list[tuple[str, str]]:
    """(prompt, completion) pairs of a JSONL file with "prompt" and "completion", or "problem" and "solution", a line.

    Args:
        path: the user's file; None takes regression.jsonl of the model, else the embedded one of plain English.
        directory: of the model's files.
        task: makes prompts of problems.

    Raises:
        UserError: the file is missing, empty or too long, or a line is not of that form; names file and line.
    """
    if path is None:
        embedded = pathlib.Path(str(importlib.resources.files("mass_jax") / "data" / "audit" / "regression.jsonl"))
        path = next(p for p in (directory / "regression.jsonl", embedded) if p.is_file())
    rows = jsonl.read(path)
    if not 0 < len(rows) <= MOST_ROWS:
        raise UserError(f"{path} has {len(rows)} texts; give 1 to {MOST_ROWS}")
    return [_pair(row.value, f"{path}:{row.line}", task) for row in rows]


def is_text(value: Any) -> bool:
    """Whether a value is a text that a tokenizer takes; JSON can spell others, with lone surrogates."""
    return isinstance(value, str) and value == value.encode("utf-8", "replace").decode()


def encode_suite(dialogue: Any, pairs: Sequence[tuple[str, str]]) -> Text:
    """Encodes the suite as rows [R, T], as long as the longest needs; encoded as training pairs are.

    Args:
        dialogue: with the tokenizer and the end token.
        pairs: of `read_suite`.
    """
    tokenizer, end = dialogue.tokenizer, dialogue.end_token
    lengths = [
        len(encode(tokenizer, prompt)) + len(encode_completion(tokenizer, completion, end))
        for prompt, completion in pairs
    ]
    return encode_pairs(tokenizer, pairs, max(lengths), end)[0]


def _pair(row: Any, where: str, task: Any) -> tuple[str, str]:
    for first, second in (("prompt", "completion"), ("problem", "solution")):
        if isinstance(row, dict) and is_text(row.get(first)) and is_text(row.get(second)):
            return row[first] if first == "prompt" else task.solver_prompt(row[first]), row[second]
    raise UserError(f'{where} needs texts "prompt" and "completion", or "problem" and "solution"')
