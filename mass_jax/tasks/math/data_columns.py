"""Renames the columns of problem files, as `--columns` says."""

from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.config import nearest
from mass_jax.errors import UserError


def renamed(rows: Sequence[tuple[str, Any]], columns: Mapping[str, str], name: str) -> list[tuple[str, Any]]:
    """Returns (place, row) pairs with renamed columns; values that are not rows are unchanged.

    Args:
        rows: Pairs of a place and a row.
        columns: Column of the file for each new name. Several names may share a column.
        name: Name of the file, for error messages.

    Raises:
        UserError: If no row has one of the columns.

    Example:
        >>> renamed([("line 2", {"question": "1+1?", "n": "7"})], {"problem": "question"}, "own.csv")
        [('line 2', {'n': '7', 'problem': '1+1?'})]
    """
    known = {key for _, row in rows if isinstance(row, Mapping) for key in row}
    for target, column in columns.items():
        if known and column not in known:
            shown = [key[:40] if key.isprintable() else repr(key)[:40] for key in sorted(map(str, known))[:20]]
            raise UserError(f"--columns={target}:{column}: {name} has no column {column!r}; {nearest(column, shown)}")
    return [(place, _renamed_row(row, columns) if isinstance(row, Mapping) else row) for place, row in rows]


def _renamed_row(row: Mapping[Any, Any], columns: Mapping[str, str]) -> dict[Any, Any]:
    taken = {*columns.values(), *columns}
    kept = {key: value for key, value in row.items() if key not in taken}
    return kept | {target: row[column] for target, column in columns.items() if column in row}
