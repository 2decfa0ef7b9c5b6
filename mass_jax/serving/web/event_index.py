"""Index of an event log: finds events by number or by request, and reads each record once to verify it."""

import array
import hmac
import pathlib
from collections.abc import Mapping
from typing import Any

from mass_jax.audit.chain import Head, walk
from mass_jax.runtime import jsonl

MOST_REQUESTS = 100_000  # requests remembered, about 20 MB


class EventIndex:
    """Finds events of a log that this and other processes append to.

    The id of an event is NUMBER:HASH, as `audit verify` prints it. The hash is the secret that gives access to the
    event, so that a client can read its own events and no others.

    Args:
        path: the log.
        most_requests: number of latest requests to remember.

    Raises:
        Broken: from any method, if a new record fails verification.
    """

    def __init__(self, path: pathlib.Path, most_requests: int = MOST_REQUESTS):
        self._file, self._head = path.open("rb"), Head()
        self._starts = array.array("Q")  # offset of each record in the file
        self._numbers: dict[bytes, int] = {}  # number of the event of a request
        self._most = most_requests
        self._refresh()

    def close(self) -> None:
        """Closes the log."""
        self._file.close()

    def id_of(self, number: int) -> str:
        """Returns the id of an event by its number.

        Raises:
            KeyError: the log has no such record.
        """
        return event_id(self._read(number))

    def find(self, name: str) -> dict[str, Any] | None:
        """Returns an event by its id, or None; other kinds of records are not found."""
        number, _, digest = name.partition(":")
        if not (number.isascii() and number.isdigit() and len(number) <= 12 and digest.isascii()):
            return None
        try:
            record = self._read(int(number))
        except KeyError:
            return None
        same = hmac.compare_digest(record["hash"], digest)
        return record if same and record["kind"] == "adaptation" else None

    def recorded(self, request: str) -> dict[str, Any] | None:
        """Returns the latest event of a request (`AdaptationService.request`) whose texts are stored, or None."""
        self._refresh()
        number = self._numbers.get(bytes.fromhex(request))
        return None if number is None else self._read(number)

    def _read(self, number: int) -> dict[str, Any]:
        if number > len(self._starts):
            self._refresh()
        if not 1 <= number <= len(self._starts):
            raise KeyError(number)
        self._file.seek(self._starts[number - 1])
        return jsonl.loads(self._file.readline())

    def _refresh(self) -> None:
        """Verifies and indexes the records that were appended since the last call."""
        self._file.seek(self._head.size)
        for record, head in walk(self._file, self._head):
            if isinstance(record, bytes):  # a record that is being written, or was cut off by a crash
                return
            self._starts.append(self._head.size)
            self._head = head
            self._note(record)

    def _note(self, record: Mapping[str, Any]) -> None:
        if record["kind"] != "adaptation" or isinstance(record["problem"], dict):
            return
        request = bytes.fromhex(record["request"])
        self._numbers.pop(request, None)  # the latest one is remembered longest
        self._numbers[request] = record["number"]
        if len(self._numbers) > self._most:
            del self._numbers[next(iter(self._numbers))]


def event_id(record: Mapping[str, Any]) -> str:
    """Returns the id of a record.

    >>> event_id({"number": 7, "hash": "e3b0"})
    '7:e3b0'
    """
    return f"{record['number']}:{record['hash']}"
