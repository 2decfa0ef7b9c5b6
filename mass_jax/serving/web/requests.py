"""Reads questions from HTTP requests; anything unexpected is refused with a status and one line."""

import asyncio
import secrets
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request

from mass_jax.config import nearest
from mass_jax.runtime import jsonl
from mass_jax.serving import stages
from mass_jax.tasks.base import Problem

MOST_ID_CHARS = 128
_FIELDS = ("problem", "id", "stream")


class Refused(Exception):
    """A request is refused.

    Attributes:
        status: HTTP status.
        retry_after: seconds after which another try may succeed; None if the request is at fault.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class Asked(NamedTuple):
    """A question with the form of its response.

    Attributes:
        question: the question; without an id of the client's, it has a random one.
        named: whether the client gave the id, so that an earlier event may answer it.
        stream: whether to stream progress, or to respond once with the answer.
    """

    question: Problem
    named: bool
    stream: bool


async def read_question(request: Request, most_bytes: int, seconds: float) -> Asked:
    """Reads and checks the body of a request.

    Args:
        request: the request.
        most_bytes: limit on the body.
        seconds: time within which the body must arrive.

    Raises:
        Refused: the body is not a question.
    """
    # Browsers send JSON to another site only after asking it, which this server never allows.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, f"the content type is {kind[:60]!r}; send application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "the body is compressed; send it without a content encoding")
    try:
        async with asyncio.timeout(seconds):
            return parse(await _read(request, most_bytes))
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {seconds:g} s; send it faster") from None
    except ClientDisconnect:
        raise Refused(400, "the body is incomplete; send it again") from None


async def _read(request: Request, most_bytes: int) -> bytes:
    too_long = Refused(413, f"the body is longer than {most_bytes} bytes; shorten the problem")
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > most_bytes):
        raise too_long
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise too_long
    return bytes(body)


def parse(body: bytes) -> Asked:
    """Parses the body of a request.

    Raises:
        Refused: the body is not a question; the message is one line.

    >>> asked = parse(b'{"problem": "4 kabo 3", "id": 7}')
    >>> asked.question.problem, asked.question.id, asked.named, asked.stream
    ('4 kabo 3', '7', True, True)
    """
    try:
        row = jsonl.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8 (byte {error.start}); encode it as UTF-8") from None
    except jsonl.BadJson as error:
        raise Refused(400, f"the body is {error}; send one JSON object") from None
    if not isinstance(row, dict):
        raise Refused(400, f'the body is {jsonl.kind(row)}; send an object like {{"problem": "4 kabo 3"}}')
    if unknown := sorted(row.keys() - set(_FIELDS)):
        raise Refused(400, f"field {unknown[0][:60]!r} is unknown; {nearest(unknown[0][:60], _FIELDS)}")
    problem, name, stream = row.get("problem"), row.get("id"), row.get("stream", True)
    if not isinstance(problem, str):
        raise Refused(400, f"'problem' is {jsonl.kind(problem)}; send a string")
    if len(problem) > stages.MOST_CHARS:
        raise Refused(422, f"'problem' has {len(problem)} characters; the limit is {stages.MOST_CHARS}")
    if isinstance(name, bool) or not isinstance(name, str | int | None):
        raise Refused(400, f"'id' is {jsonl.kind(name)}; send a string or an integer, or omit it")
    if not isinstance(stream, bool):
        raise Refused(400, f"'stream' is {jsonl.kind(stream)}; send true or false")
    text = secrets.token_hex(8) if name is None else str(name)
    if not 1 <= len(text) <= MOST_ID_CHARS or not text.isprintable():
        raise Refused(400, f"'id' must have 1 to {MOST_ID_CHARS} printable characters")
    return Asked(Problem(text, problem, "", ""), name is not None, stream)
