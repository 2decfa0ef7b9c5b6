"""HTTP/1.1 connections that must send their requests in time, and whose number is bounded."""

import asyncio
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from mass_jax.runtime import jsonl
from mass_jax.serving.web.security import HEADERS


class BoundedConfig(uvicorn.Config):
    """uvicorn's configuration, with limits on connections.

    Args:
        app: the ASGI application.
        connections: largest number of connections.
        request_seconds: time within which the head of a request must arrive: of the first one since the connection
            was made, of later ones since their first byte. The application limits the time for bodies that it reads.
        **options: passed to `uvicorn.Config`.
    """

    def __init__(self, app: ASGIApp, connections: int, request_seconds: float, **options: Any):
        # uvicorn's own limit still bounds the requests that outlive their connections.
        super().__init__(app, http=BoundedProtocol, limit_concurrency=connections + 1, **options)
        self.connections, self.request_seconds = connections, request_seconds


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with the limits of `BoundedConfig`, and its own errors in JSON with the security headers.

    uvicorn limits the time between requests, but neither that for the head of a request nor the number of idle
    connections, which would use up its limit on concurrency.
    """

    def __init__(self, config: BoundedConfig, *arguments: Any, **options: Any):
        super().__init__(config, *arguments, **options)
        self._limits = config
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accepts a connection, or refuses it above the limit."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self.connections.discard(self)
            self._refuse(503, "too many connections; try again later")
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        super().connection_lost(exc)
        self._cancel()

    def data_received(self, data: bytes) -> None:
        """Reads data, unless the connection is refused."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answers a malformed request."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(400, msg)
        else:  # the response has begun
            self.transport.abort()

    def _watch(self) -> None:
        """Starts the time for a request, or cancels it if the request is being answered."""
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            self._cancel()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.request_seconds, self.transport.abort)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int, message: str) -> None:
        """Sends an error of one line and closes the connection."""
        body = jsonl.dumps({"error": message}).encode("ascii")
        headers = HEADERS | {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        for event in (
            h11.Response(status_code=status, headers=list(headers.items())),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
