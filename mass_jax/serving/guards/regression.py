"""The regression suite: texts on which an update must not make the model worse."""

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
    """Tolerated degradation on the suite.

    Attributes:
        accuracy_drop: largest drop in the share of texts that greedy decoding reproduces.
        nll_rise: largest rise of the mean loss, in nats per token.
    """

    accuracy_drop: float = 0.2
    nll_rise: float = 0.1


class Regression(NamedTuple):
    """Accuracy and mean loss (nats per token) on the suite, before and after an update."""

    accuracy_before: float
    accuracy_after: float
    nll_before: float
    nll_after: float


def worse(found: Regression, tolerance: Tolerance) -> str:
    """Returns why an update must be rolled back; "" if it need not be.

    >>> worse(Regression(0.75, 0.25, 0.3, 0.4), Tolerance())
    'regression: accuracy 0.75 -> 0.25, over the tolerated drop 0.2'
    """
    if not found.accuracy_after >= found.accuracy_before - tolerance.accuracy_drop:
        change = f"accuracy {found.accuracy_before:.3g} -> {found.accuracy_after:.3g}"
        return f"regression: {change}, over the tolerated drop {tolerance.accuracy_drop:g}"
    if not found.nll_after <= found.nll_before + tolerance.nll_rise:
        change = f"loss {found.nll_before:.3g} -> {found.nll_after:.3g} nats per token"
        return f"regression: {change}, over the tolerated rise {tolerance.nll_rise:g}"
    return ""


def read_suite(path: pathlib.Path | None, directory: pathlib.Path, task: Any) -> list[tuple[str, str]]:
    """Reads a suite from JSONL lines with "prompt" and "completion", or "problem" and "solution".

    Args:
        path: the user's file; None reads the model's regression.jsonl, or else the embedded suite of English texts.
        directory: directory of the model's files.
        task: turns problems into prompts.

    Returns:
        (prompt, completion) pairs.

    Raises:
        UserError: the file is missing, empty or too long, or a line has another form; names file and line.
    """
    if path is None:
        embedded = pathlib.Path(str(importlib.resources.files("mass_jax") / "data" / "audit" / "regression.jsonl"))
        path = next(p for p in (directory / "regression.jsonl", embedded) if p.is_file())
    rows = jsonl.read(path)
    if not 0 < len(rows) <= MOST_ROWS:
        raise UserError(f"{path} has {len(rows)} texts; give 1 to {MOST_ROWS}")
    return [_pair(row.value, f"{path}:{row.line}", task) for row in rows]


def is_text(value: Any) -> bool:
    """Returns whether a value is a string without lone surrogates, which JSON allows and tokenizers reject."""
    return isinstance(value, str) and value == value.encode("utf-8", "replace").decode()


def encode_suite(dialogue: Any, pairs: Sequence[tuple[str, str]]) -> Text:
    """Encodes the suite like training pairs, as rows [R, T] of the longest text's length.

    Args:
        dialogue: provides the tokenizer and the end token.
        pairs: (prompt, completion) pairs of `read_suite`.
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
    raise UserError(f'{where} needs strings "prompt" and "completion", or "problem" and "solution"')
