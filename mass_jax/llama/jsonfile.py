"""Reading of the JSON files in a model directory."""

import json
import pathlib
from typing import Any

from mass_jax.errors import UserError


def read(file: pathlib.Path) -> dict[str, Any]:
    """Reads a file with one JSON object, in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Args:
        file: path of the file.

    Returns:
        The parsed object.

    Raises:
        FileNotFoundError: the file does not exist.
        UserError: the file is not JSON, or its top level is not an object.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     file = pathlib.Path(directory) / "config.json"
    ...     _ = file.write_text('{"vocab_size": 7}')
    ...     read(file)
    {'vocab_size': 7}
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: give a directory that contains it")
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON ({error}): download it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{file} contains a JSON {_kind(value)} instead of an object: download it again")
    return value


def _kind(value: Any) -> str:
    return {list: "list", str: "string", type(None): "null", bool: "boolean"}.get(type(value), "number")
