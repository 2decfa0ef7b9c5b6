"""Responses in JSON and as server-sent events, in ASCII, so that texts of a model need no encoding."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import Response

from mass_jax.runtime import jsonl
from mass_jax.serving.service import Answer
from mass_jax.serving.web.queue import Accepted, Failed, Progress

KEEP_ALIVE_SECONDS = 15.0


def json_response(row: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a response of one JSON object."""
    return Response(jsonl.dumps(row), status, headers, "application/json")


def error_response(message: str, status: int, retry_after: int | None = None) -> Response:
    """Returns an error of one line, with Retry-After if another try may succeed."""
    headers = None if retry_after is None else {"Retry-After": str(retry_after)}
    return json_response({"error": " ".join(message.splitlines())}, status, headers)


def answer_row(answer: Answer, event: str, recorded: bool) -> dict[str, Any]:
    """Returns an answer as clients get it.

    Args:
        answer: the answer.
        event: id of its event.
        recorded: whether an earlier request made the event.
    """
    return {
        "id": answer.id,
        "text": answer.text,
        "before": answer.before,
        "decision": answer.decision,
        "reason": answer.reason,
        "event": event,
        "recorded": recorded,
        "tokens": dict(answer.tokens),
        "flops": answer.flops,
        "seconds": dict(answer.seconds),
    }


def sent_event(name: str, row: Mapping[str, Any]) -> str:
    r"""Returns a server-sent event.

    >>> sent_event("progress", {"phase": "gates"})
    'event: progress\ndata: {"phase": "gates"}\n\n'
    """
    return f"event: {name}\ndata: {jsonl.dumps(row)}\n"


async def stream(accepted: Accepted, event_of: Callable[[Answer], Awaitable[str]]) -> AsyncIterator[str]:
    """Streams the progress of a question, and last its answer or an error, as server-sent events.

    Args:
        accepted: the question.
        event_of: gives the id of an answer's event.
    """
    yield sent_event("accepted", {"id": accepted.question.id, "ahead": accepted.ahead})
    async with contextlib.aclosing(accepted.updates(KEEP_ALIVE_SECONDS)) as updates:
        async for update in updates:
            if update is None:
                yield ": waiting\n\n"
            elif isinstance(update, Progress):
                yield sent_event("progress", {"phase": update.phase})
            elif isinstance(update, Failed):
                yield sent_event("error", {"error": update.reason})
            else:
                yield sent_event("answer", answer_row(update, await event_of(update), recorded=False))
