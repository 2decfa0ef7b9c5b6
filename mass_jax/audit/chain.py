"""A chain of records: each line is canonical JSON that carries the hash of the line before it and its own.

    hash_n = sha256(canonical(record_n without hash)),    record_n["prev"] = hash_{n-1}

One line has one spelling, so that no byte of it can change unnoticed. Who can rewrite the whole file can make a
new chain too: keep the last hash elsewhere (`audit verify` prints it, `--expect` compares it).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from mass_jax.errors import UserError
from mass_jax.runtime import jsonl

GENESIS = "0" * 64
MAX_LINE = 16 * 2**20


class Broken(UserError):
    """The chain does not hold; the message says where and how."""


class Head(NamedTuple):
    """The end of a chain: the last record's number, the bytes up to there, and its hash."""

    number: int = 0
    size: int = 0
    hash: str = GENESIS


def canonical(record: Mapping[str, Any]) -> bytes:
    """The one spelling of a record: sorted keys, no spaces, ASCII.

    Raises:
        ValueError: for a number that is not finite; JSON has none.

    >>> canonical({"b": 1.50, "a": "é"})
    b'{"a":"\\\\u00e9","b":1.5}'
    """
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def seal(record: Mapping[str, Any], head: Head) -> tuple[dict[str, Any], bytes, Head]:
    """Numbers a record and binds it to what came before.

    Returns:
        The sealed record, its line, and the head after it.

    >>> record, line, head = seal({"kind": "note"}, Head())
    >>> record["number"], record["prev"] == GENESIS, head.hash == record["hash"]
    (1, True, True)
    """
    bound = {**record, "number": head.number + 1, "prev": head.hash}
    sealed = {**bound, "hash": sha256(canonical(bound))}
    line = canonical(sealed) + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"a record of {len(line)} bytes is longer than {MAX_LINE}; shorten the texts")
    return sealed, line, Head(head.number + 1, head.size + len(line), sealed["hash"])


def follow(line: bytes, head: Head) -> tuple[dict[str, Any], Head]:
    """Checks one whole line against what came before it.

    Returns:
        The record, and the head after it.

    Raises:
        Broken: it was edited, removed from its place, or put out of order.
    """
    where = f"record {head.number + 1}"
    try:
        record = jsonl.loads(line)
        spelled = isinstance(record, dict) and canonical(record) + b"\n" == line
    except (ValueError, RecursionError):  # also of writing it again
        raise Broken(f"{where} is no JSON: it was edited") from None
    if not spelled:
        raise Broken(f"{where} is not spelled as it was written: it was edited")
    claimed = record.get("hash")
    if claimed != sha256(canonical({key: value for key, value in record.items() if key != "hash"})):
        raise Broken(f"{where} does not match its hash: it was edited")
    if (record.get("number"), record.get("prev")) != (head.number + 1, head.hash):
        raise Broken(f"{where} does not follow the one before it: a record was removed, added or moved")
    return record, Head(head.number + 1, head.size + len(line), claimed)


def walk(file: BinaryIO, head: Head = Head()) -> Iterator[tuple[dict[str, Any] | bytes, Head]]:  # noqa: B008  (frozen)
    """Streams a chain from an opened file, one line in memory at a time.

    Args:
        file: positioned at `head.size`.
        head: what was followed already.

    Yields:
        (record, head after it); last, for what follows the last newline, its bytes and the head before it.

    Raises:
        Broken: at the first line that does not hold.
    """
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise Broken(f"record {head.number + 1} is longer than {MAX_LINE} bytes")
        if not line.endswith(b"\n"):
            yield line, head
            return
        record, head = follow(line, head)
        yield record, head
