"""Runs the HTTP application with uvicorn, and stops it without losing an accepted question."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from absl import logging

from mass_jax.errors import UserError
from mass_jax.serving.web.app import AnswerApp
from mass_jax.serving.web.protocol import BoundedConfig

BACKLOG = 128
SPARE_CONNECTIONS = 64  # besides those of waiting questions
CLOSING_SECONDS = 5


def listen(host: str, port: int) -> socket.socket:
    """Opens a listening socket; port 0 chooses a free one.

    Raises:
        UserError: the address cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"--host={host} is not an address of this machine ({error.strerror})") from None
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise UserError(f"--host={host} --port={port} cannot be bound ({error.strerror}); choose another") from None
    return opened


def url_of(listening: socket.socket) -> str:
    """Returns the address of a socket for a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class AnswerServer:
    """Serves an application until it is stopped.

    Args:
        app: the application, with its queue.
        listening: the socket to accept connections from; closed at the end.
        connections: largest number of connections; more get a 503 and are closed at once.
        grace: seconds after a stop within which accepted questions are answered; the others are then recorded as not
            answered. The batch that is being answered always ends.
        on_signal: called with the number of each signal that `on_signals` handles.
    """

    def __init__(
        self,
        app: AnswerApp,
        listening: socket.socket,
        connections: int,
        grace: float = 30.0,
        on_signal: Callable[[int], None] = lambda _: None,
    ):
        self._app, self._listening, self._grace = app, listening, grace
        self._on_signal, self._stop = on_signal, asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server = _Server(self, app, connections)

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Context in which SIGINT and SIGTERM stop the server, also before and after `run`; for the main thread."""
        before = {
            number: signal.signal(number, lambda number, _: self.signaled(number))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self) -> None:
        """Serves until `stop` is called."""
        try:
            asyncio.run(self._run())
        finally:
            self._loop = None

    def stop(self) -> None:
        """Asks the server to stop; may be called from any thread or signal handler."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        else:
            self._stop.set()

    def signaled(self, signum: int) -> None:
        """Handles a signal."""
        self._on_signal(signum)
        self.stop()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        queue = self._app.queue
        answering = asyncio.create_task(queue.run())
        serving = asyncio.create_task(self._server.serve([self._listening]))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([answering, serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        queue.stop()
        if queue.waiting:
            logging.warning("answering %d waiting questions within %g s", queue.waiting, self._grace)
        await asyncio.wait([answering], timeout=self._grace)
        await queue.drop_waiting()
        await answering
        self._server.should_exit = True
        await serving
        stopping.cancel()


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to `AnswerServer`."""

    def __init__(self, owner: AnswerServer, app: AnswerApp, connections: int):
        config = BoundedConfig(
            app.asgi,
            connections,
            app.limits.body_seconds,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,  # ids of events are secrets of their clients
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=CLOSING_SECONDS,
            h11_max_incomplete_event_size=16384,
        )
        super().__init__(config)
        self._owner = owner

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handles SIGINT and SIGTERM."""
        self._owner.signaled(sig)
