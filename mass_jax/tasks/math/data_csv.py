"""Reads CSV files of problems: a header, then one row per problem."""

import collections
import csv
import io
import pathlib
from typing import Any

from mass_jax.errors import UserError
from mass_jax.runtime import jsonl

MOST_CHARACTERS = 131_072
"""Largest length of a field; a longer one is usually the rest of a file after a quote that is not closed."""

_FIX = "quote fields that contain commas, quotes or line breaks, and double the quotes in them"


def rows(path: pathlib.Path) -> list[tuple[str, Any]]:
    """Reads a CSV file with a header.

    Values are text and keep every digit. Blank lines are omitted.

    Args:
        path: File in UTF-8, UTF-16 or UTF-32, with or without a byte order mark, optionally compressed with gzip.
            Fields are separated by commas and quoted with ", which is doubled in quoted fields.

    Returns:
        Pairs of a place such as "line 2" and a row, in order. A row is a mapping from the names of the header to text,
        or a `jsonl.DamagedLine` if it has another number of fields than the header or is not UTF-8.

    Raises:
        UserError: If the file cannot be read, its header has a name twice, its quoting is wrong, or a field is too
            long; the message names the file and the line.
    """
    records = _records(path, jsonl.decoded(path))
    if not records:
        return []
    (line, header), *others = records
    header = _checked_header(f"{path}:{line}", header)
    return [(f"line {line}", _row(line, header, record)) for line, record in others]


def _records(path: pathlib.Path, text: str) -> list[tuple[int, list[str]]]:
    """Returns the records that are not blank, with the line on which each starts."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records: list[tuple[int, list[str]]] = []
    line = 1
    while True:
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{path}:{line}: not CSV ({error}); {_FIX}") from None
        if record is None:
            return records
        if max(map(len, record), default=0) > MOST_CHARACTERS:  # the limit of the csv module can be changed
            raise UserError(f"{path}:{line}: a field of more than {MOST_CHARACTERS} characters; {_FIX}")
        if record:
            records.append((line, record))
        line = reader.line_num + 1


def _checked_header(place: str, record: list[str]) -> list[str]:
    """Returns the names of the columns, without surrounding whitespace."""
    header = [name.strip() for name in record]
    if fault := jsonl.encoding_fault("".join(header)):
        raise UserError(f"{place}: the header is {fault}; save the file as UTF-8")
    name, count = collections.Counter(header).most_common(1)[0]
    if count > 1:
        raise UserError(f"{place}: the header has the column {name[:40]!r} {count} times; rename or remove one")
    separator = next((mark for mark in (";", "\t", "|") if mark in header[0]), None)
    if len(header) == 1 and separator:
        raise UserError(f"{place}: the header is separated by {separator!r}; save the file with commas")
    return header


def _row(line: int, header: list[str], record: list[str]) -> dict[str, str] | jsonl.DamagedLine:
    if len(record) != len(header):
        return jsonl.DamagedLine(line, f"{'more' if len(record) > len(header) else 'fewer'} fields than the header")
    if fault := jsonl.encoding_fault("".join(record)):
        return jsonl.DamagedLine(line, fault)
    return dict(zip(header, record, strict=True))
