"""Readers and writers of JSON Lines, for users' files and for the project's own logs.

`scan` and `read` are for users' files: any Unicode encoding, gzip, arrays, several values on a line. `read_log`,
`append` and `rewrite` are for files that the project writes, where a crash may have cut off the last line.
"""

import gzip
import io
import json
import os
import pathlib
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

from mass_jax.errors import UserError
from mass_jax.strict_json import BLANK, BadJson, kind, loads, parse_at

MOST_BYTES = 2**30  # of a decompressed file

_NEXT = re.compile(f"[{BLANK},]*")
_ARRAY = re.compile(rf"[{BLANK}]*\[[{BLANK}]*\{{")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # bytes that `surrogateescape` kept
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"BZh": "compressed with bzip2; decompress it",
    b"\xfd7zXZ": "compressed with xz; decompress it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; decompress it",
    b"PAR1": "a Parquet file; name it .parquet",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
}


class Line(NamedTuple):
    """A value and the number of the line on which it starts, counted from 1."""

    line: int
    value: Any


class DamagedLine(NamedTuple):
    """The number of an unreadable line, and the reason."""

    line: int
    reason: str


class Log(NamedTuple):
    """Contents of a log: its rows, its damaged lines, and its last line if that is cut off."""

    rows: list[Line]
    damaged: list[DamagedLine]
    torn: list[DamagedLine]


def scan(path: pathlib.Path, *, exact: bool = False) -> list[Line | DamagedLine]:
    """Reads a user's file of JSON values: one per line, in one array, or in sequence.

    Args:
        path: file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark, optionally compressed with gzip.
        exact: whether to keep every digit of numbers; see `mass_jax.strict_json.loads`.

    Returns:
        All values and unreadable lines, in order. Blank lines are omitted.

    Raises:
        UserError: If the file cannot be read at all; the message names the file, the line and the reason.
    """
    text = decoded(path)
    rows = [_row(number, line, exact) for number, line in enumerate(text.split("\n"), 1) if line.strip(BLANK)]
    if text.lstrip(BLANK).startswith("[") or any(isinstance(row, DamagedLine) for row in rows):
        try:
            return list(_values(text, exact))
        except BadJson as error:
            whole = isinstance(rows[0], DamagedLine) and _ARRAY.match(text)
            if whole or not any(isinstance(row, Line) and isinstance(row.value, dict) for row in rows):
                line = text.count("\n", 0, error.position) + 1
                raise UserError(f"{path}:{line}: {error}; give one JSON object per line, in UTF-8") from None
    return rows


def read(path: pathlib.Path, *, exact: bool = False) -> list[Line]:
    """Reads a user's file of JSON values like `scan`, but raises if any line is damaged.

    Raises:
        UserError: If a line cannot be read; the message names the file, the line and the reason.
    """
    rows: list[Line] = []
    for row in scan(path, exact=exact):
        if isinstance(row, DamagedLine):
            raise UserError(f"{path}:{row.line}: {row.reason}; fix the line or remove it")
        rows.append(row)
    return rows


def read_log(path: pathlib.Path) -> Log:
    """Reads a log written by `append`, one object per line; an absent file counts as empty.

    Returns:
        The contents of the log. Text after the last newline counts as a line that a crash cut off, not as a row.

    Raises:
        UserError: If the file exists and cannot be opened.
    """
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return Log([], [], [])
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    rows: list[Line] = []
    damaged: list[DamagedLine] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _row(number, line.decode("utf-8", "surrogateescape"), exact=False)
        if isinstance(row, DamagedLine):
            damaged.append(row)
        elif not isinstance(row.value, dict):
            damaged.append(DamagedLine(number, f"expected an object, got {kind(row.value)}"))
        else:
            rows.append(row)
    return Log(rows, damaged, [DamagedLine(len(lines) + 1, "the line is cut off")] if last else [])


def warn_of_damage(path: pathlib.Path, damaged: Sequence[DamagedLine]) -> None:
    """Logs one warning if a file has damaged lines."""
    if damaged:
        first, count = damaged[0], len(damaged)
        others = f" (the first of {count} damaged lines)" if count > 1 else ""
        logging.warning("%s:%d: %s; the line is skipped%s", path, first.line, first.reason, others)


def dumps(row: Mapping[str, Any]) -> str:
    """Serializes a row to one line of ASCII that ends in a newline.

    Raises:
        ValueError: If the row contains NaN or Infinity, which are not valid JSON.

    >>> dumps({"step": 1, "loss": 0.5})
    '{"step": 1, "loss": 0.5}\\n'
    """
    return json.dumps(row, allow_nan=False) + "\n"


def append(path: pathlib.Path, rows: Iterable[Mapping[str, Any]], *, sync: bool = False) -> None:
    """Appends rows to a log in one write.

    Args:
        path: the log, created if absent.
        rows: rows to append.
        sync: whether to wait until the rows are on disk, so that they survive a crash of the machine.
    """
    text = "".join(map(dumps, rows))
    with path.open("a", encoding="ascii") as file:
        file.write(text)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def rewrite(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces the contents of a log atomically: after a crash, the file has either the old contents or the new."""
    from mass_jax.runtime.workdir import write_atomically  # imports JAX, which readers do not need

    write_atomically(path, "".join(map(dumps, rows)))


def decoded(path: pathlib.Path) -> str:
    """Returns the text of a user's file, with "\\n" line ends and with invalid UTF-8 bytes as lone surrogates.

    Args:
        path: file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark, optionally compressed with gzip.

    Raises:
        UserError: If the file cannot be read or is in another format; the message names the file and the reason.
    """
    data = _bytes(path)
    encoding = "utf-8-sig" if data[:4] == bytes(4) else json.detect_encoding(data)
    try:
        text = data.decode("utf-8-sig", "surrogateescape") if encoding.startswith("utf-8") else data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(encoding, "replace").count("\n") + 1
        raise UserError(f"{path}:{line}: not {encoding.upper()} ({error.reason}); save the file as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def encoding_fault(text: str) -> str:
    """Returns why a text from `decoded` is not UTF-8, or "" if it is.

    >>> encoding_fault("gr\\udcf6ner")
    'not UTF-8 (byte 0xf6)'
    """
    escaped = _NOT_UTF8.search(text)
    return f"not UTF-8 (byte 0x{ord(escaped[0]) - 0xDC00:02x})" if escaped else ""


def _bytes(path: pathlib.Path) -> bytes:
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MOST_BYTES + 1)
            if len(data) > MOST_BYTES:
                raise UserError(f"{path} decompresses to more than {MOST_BYTES} bytes; split it")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}); compress or download it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a readable file") from None
    for opening, name in _OTHER_FORMATS.items():
        if data.startswith(opening):
            raise UserError(f"{path} is {name}")
    return data


def _row(number: int, line: str, exact: bool) -> Line | DamagedLine:
    """Parses a line; a trailing comma, as between the elements of an array, is ignored."""
    if fault := encoding_fault(line):
        return DamagedLine(number, fault)
    try:
        return Line(number, loads(line.strip(BLANK).removesuffix(","), exact=exact))
    except BadJson as error:
        return DamagedLine(number, str(error))


def _values(text: str, exact: bool) -> list[Line]:
    """Parses a text as one array, or else as a sequence of values.

    Returns:
        The elements of the array, or the values.

    Raises:
        BadJson: If the text is neither; the reason is that of the likelier reading.
    """
    if escaped := _NOT_UTF8.search(text):
        raise BadJson(encoding_fault(text), escaped.start())
    end = len(text.rstrip(BLANK))
    start = len(text) - len(text.lstrip(BLANK))
    failed = []
    if text.startswith("[", start):
        try:
            return _array(text, start, end, exact)
        except BadJson as error:
            failed.append(error)
    try:
        return _sequence(text, start, end, exact)
    except BadJson as error:
        failed.append(error)
    raise failed[0] if _ARRAY.match(text) else max(failed, key=lambda error: error.position)


def _array(text: str, start: int, end: int, exact: bool) -> list[Line]:
    rows = _sequence(text, start + 1, end - 1 if text[end - 1] == "]" else end, exact)
    if text[end - 1] != "]" or end - start < 2:
        raise BadJson("the array is not closed: the file is cut off", end)
    return rows


def _sequence(text: str, start: int, end: int, exact: bool) -> list[Line]:
    """Parses the values between two positions, separated by whitespace or commas."""
    rows: list[Line] = []
    line, counted = 1, 0
    while (start := _skip(text, start)) < end:
        value, after = parse_at(text, start, exact)
        line, counted = line + text.count("\n", counted, start), start
        rows.append(Line(line, value))
        start = after
    return rows


def _skip(text: str, start: int) -> int:
    found = _NEXT.match(text, start)
    return found.end() if found else start
