"""Security headers for every response, and refusal of requests that name another host."""

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mass_jax.serving.web.responses import json_response

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Secured:
    """ASGI middleware that adds `HEADERS` and checks the Host header.

    Without the check, a web page could make a browser take its own host name for this server (DNS rebinding) and read
    the responses.

    Args:
        app: the application.
        hosts: accepted host names; empty accepts all.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = LOOPBACK):
        self._app, self._hosts = app, tuple(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        host = host_name(Headers(scope=scope).get("host", "")) if scope["type"] == "http" else ""
        if scope["type"] == "http" and self._hosts and host not in self._hosts:
            message = f"this server is not {host[:60]!r}; use {self._hosts[0]}, or start it with --hosts"
            await json_response({"error": message}, 421)(scope, receive, send_secured)
        else:
            await self._app(scope, receive, send_secured)


def host_name(header: str) -> str:
    """Returns the name in a Host header, without the port.

    >>> host_name("LOCALHOST:8000"), host_name("[::1]:8000"), host_name("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    name = header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    return name.lower()
