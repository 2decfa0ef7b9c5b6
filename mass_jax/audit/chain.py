"""Hash chain: each line is canonical JSON with its own hash and the hash of the line before it.

    hash_n = sha256(canonical(record_n without hash)),    record_n["prev"] = hash_{n-1}

A record has exactly one encoding, so any changed byte is detected. Anyone who can rewrite the whole file can also
recompute the chain, so keep the last hash elsewhere (`audit verify` prints it, `--expect` compares it).
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
    """Verification failed; the message names the record and the fault."""


class Head(NamedTuple):
    """End of a chain.

    Attributes:
        number: number of the last record, from 1.
        size: bytes up to its end.
        hash: its hash.
    """

    number: int = 0
    size: int = 0
    hash: str = GENESIS


def canonical(record: Mapping[str, Any]) -> bytes:
    """Returns the canonical encoding of a record: sorted keys, no spaces, ASCII.

    Raises:
        ValueError: a number is not finite, which JSON cannot represent.

    >>> canonical({"b": 1.50, "a": "é"})
    b'{"a":"\\\\u00e9","b":1.5}'
    """
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256(data: bytes) -> str:
    """Returns the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def seal(record: Mapping[str, Any], head: Head) -> tuple[dict[str, Any], bytes, Head]:
    """Numbers a record and links it to the chain.

    Args:
        record: the record, without number and hashes.
        head: end of the chain so far.

    Returns:
        The sealed record, its line, and the new head.

    Raises:
        ValueError: the record is longer than `MAX_LINE`, or holds a number that is not finite.

    >>> record, line, head = seal({"kind": "note"}, Head())
    >>> record["number"], record["prev"] == GENESIS, head.hash == record["hash"]
    (1, True, True)
    """
    bound = {**record, "number": head.number + 1, "prev": head.hash}
    sealed = {**bound, "hash": sha256(canonical(bound))}
    line = canonical(sealed) + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"a record of {len(line)} bytes exceeds the limit of {MAX_LINE}; shorten the texts")
    return sealed, line, Head(head.number + 1, head.size + len(line), sealed["hash"])


def follow(line: bytes, head: Head) -> tuple[dict[str, Any], Head]:
    """Verifies one complete line against the chain before it.

    Args:
        line: the line, with its newline.
        head: end of the chain so far.

    Returns:
        The record and the new head.

    Raises:
        Broken: the record was edited, or a record was removed, added or moved.
    """
    where = f"record {head.number + 1}"
    try:
        record = jsonl.loads(line)
        spelled = isinstance(record, dict) and canonical(record) + b"\n" == line
    except (ValueError, RecursionError):  # RecursionError: also from `canonical`
        raise Broken(f"{where} is not JSON: it was edited") from None
    if not spelled:
        raise Broken(f"{where} is not canonical JSON: it was edited")
    claimed = record.get("hash")
    if claimed != sha256(canonical({key: value for key, value in record.items() if key != "hash"})):
        raise Broken(f"{where} does not match its hash: it was edited")
    if (record.get("number"), record.get("prev")) != (head.number + 1, head.hash):
        raise Broken(f"{where} does not follow the one before it: a record was removed, added or moved")
    return record, Head(head.number + 1, head.size + len(line), claimed)


def walk(file: BinaryIO, head: Head = Head()) -> Iterator[tuple[dict[str, Any] | bytes, Head]]:  # noqa: B008  (frozen)
    """Verifies a chain from an open file, with one line in memory at a time.

    Args:
        file: positioned at `head.size`.
        head: end of the part that is already verified.

    Yields:
        (record, head after it); if bytes follow the last newline, finally those bytes and the head before them.

    Raises:
        Broken: at the first line that fails verification.
    """
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise Broken(f"record {head.number + 1} is longer than {MAX_LINE} bytes")
        if not line.endswith(b"\n"):
            yield line, head
            return
        record, head = follow(line, head)
        yield record, head
