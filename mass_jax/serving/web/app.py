"""The HTTP application: routes over the queue and the event index.

POST /v1/answers         answers {"problem": "..."}, as server-sent events or as one object
GET  /v1/events/ID       the event of an answer
GET  /healthz            whether questions are accepted
GET  /                   a page for browsers
"""

import asyncio
import concurrent.futures
import contextlib
import copy
import dataclasses
import functools
import pathlib
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, TypeVar

from absl import logging
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from mass_jax.audit.chain import Broken
from mass_jax.serving import stages
from mass_jax.serving.service import AdaptationService, Answer, answer_of_record
from mass_jax.serving.web.event_index import EventIndex, event_id
from mass_jax.serving.web.queue import Accepted, AnswerQueue, Failed, Unavailable
from mass_jax.serving.web.requests import Asked, Refused, read_question
from mass_jax.serving.web.responses import answer_row, error_response, json_response, sent_event, stream
from mass_jax.serving.web.security import LOOPBACK, Secured

T = TypeVar("T")
PAGE = pathlib.Path(__file__).parent / "static"
PAGE_FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
CHECK_SECONDS = 1.0  # between checks whether a client that does not stream is still connected
STATUS = {"full": 429, "duplicate": 409, "stopped": 503}


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on requests.

    Attributes:
        queue: largest number of waiting questions.
        body: largest body of a request, in bytes.
        body_seconds: time within which a body must arrive, and before it the head of the request.
    """

    queue: int = 64
    body: int = 65536
    body_seconds: float = 10.0


class AnswerApp:
    """Serves an adaptation service over HTTP.

    Every answer is released after its event has been read back from the log.

    Args:
        service: the service; it must have a log.
        limits: limits on requests.
        hosts: accepted host names; empty accepts all.

    Attributes:
        queue: the queue; the server runs it.
        limits: limits on requests.
        asgi: the ASGI application.
    """

    def __init__(self, service: AdaptationService, limits: Limits = Limits(), hosts: Collection[str] = LOOPBACK):
        if service.log_path is None:
            raise ValueError("the service has no log; load it with adapt=True")
        self.queue = AnswerQueue(service, limits.queue)
        self.limits, self._service = limits, service
        self._index = EventIndex(service.log_path)
        # Its own tokenizer, because the queue's thread uses the service's at the same time.
        dialogue = service.setup.model.dialogue
        self._dialogue = dataclasses.replace(dialogue, tokenizer=copy.deepcopy(dialogue.tokenizer))
        self._files = concurrent.futures.ThreadPoolExecutor(1, "mass_jax-files")
        routes = [
            Route("/v1/answers", self._answer, methods=["POST"]),
            Route("/v1/events/{name}", self._event, methods=["GET"]),
            Route("/healthz", self._health, methods=["GET"]),
            *(Route(path, functools.partial(_page, *file), methods=["GET"]) for path, file in PAGE_FILES.items()),
        ]
        handlers: dict[Any, Any] = {Refused: _refused, HTTPException: _http_error, Exception: _failed}
        self.asgi: ASGIApp = Secured(Starlette(routes=routes, exception_handlers=handlers), hosts)

    def close(self) -> None:
        """Ends the threads and closes the index; the service stays open."""
        self.queue.close()
        self._files.shutdown()
        self._index.close()

    async def _in_files(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function in the thread that reads the log and checks questions."""
        return await asyncio.get_running_loop().run_in_executor(self._files, function, *arguments)

    async def _answer(self, request: Request) -> Response:
        """POST /v1/answers."""
        asked = await read_question(request, self.limits.body, self.limits.body_seconds)
        if fault := await self._in_files(stages.unfit, self._dialogue, asked.question.problem):
            raise Refused(422, fault)
        if asked.named and (record := await self._in_files(self._recorded, asked)) is not None:
            row = answer_row(answer_of_record(record), event_id(record), recorded=True)
            if not asked.stream:
                return json_response(row)
            return StreamingResponse(_one(sent_event("answer", row)), media_type="text/event-stream")
        try:
            accepted = self.queue.accept(asked.question)
        except Unavailable as error:
            raise Refused(STATUS[error.kind], str(error), error.retry_after) from None
        if asked.stream:
            return StreamingResponse(stream(accepted, self._event_of), media_type="text/event-stream")
        return await self._at_once(request, accepted)

    async def _at_once(self, request: Request, accepted: Accepted) -> Response:
        """Waits for the answer, for clients that do not stream."""
        async with contextlib.aclosing(accepted.updates(CHECK_SECONDS)) as updates:
            async for update in updates:
                if update is None and await request.is_disconnected():
                    return error_response("the client disconnected", 400)  # reaches nobody; the question is given up
                if isinstance(update, Failed):
                    return error_response(update.reason, 503, 10)
                if isinstance(update, Answer):
                    return json_response(answer_row(update, await self._event_of(update), recorded=False))
        raise AssertionError("updates end with an answer or a failure")

    async def _event_of(self, answer: Answer) -> str:
        """Returns the id of an answer's event, which is read back from the log."""
        assert answer.event is not None
        return await self._in_files(self._index.id_of, answer.event)

    def _recorded(self, asked: Asked) -> dict[str, Any] | None:
        return self._index.recorded(self._service.request(asked.question.id, asked.question.problem))

    async def _event(self, request: Request) -> Response:
        """GET /v1/events/ID."""
        record = await self._in_files(self._index.find, request.path_params["name"])
        if record is None:
            raise Refused(404, "there is no such event; give the whole id, NUMBER:HASH")
        del record["prev"]  # it would give access to the event before
        return json_response(record)

    async def _health(self, _: Request) -> Response:
        """GET /healthz."""
        queue = self.queue
        row = {"status": queue.state, "waiting": queue.waiting, "limit": self.limits.queue, "answered": queue.answered}
        return json_response(row, 200 if queue.state == "ok" else 503)


async def _one(text: str) -> AsyncIterator[str]:
    yield text


async def _page(name: str, kind: str, _: Request) -> Response:
    """A file of the page."""
    return Response((PAGE / name).read_text(encoding="utf-8"), media_type=kind)


async def _refused(_: Request, error: Refused) -> Response:
    return error_response(str(error), error.status, error.retry_after)


async def _http_error(_: Request, error: HTTPException) -> Response:
    """Starlette's own errors: no such path, or another method."""
    response = error_response(f"{error.detail}; see the documentation of experiments.serve", error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _failed(_: Request, error: Exception) -> Response:
    """Errors of the server; Starlette logs them."""
    if isinstance(error, Broken):
        logging.error("the audit log: %s", error)
    return error_response(f"the server failed ({type(error).__name__})", 500)
