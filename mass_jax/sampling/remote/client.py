"""HTTP client of a completions server: bounded answers, a deadline for each request, errors of one line."""

import dataclasses
import http.client
import json
import os
import time
import urllib.parse
from typing import Any

from mass_jax import strict_json
from mass_jax.errors import UserError

_PIECE = 1 << 16  # bytes per read
_SHOWN = 200  # characters of a server's message in an error
LOG = "read the server's log"
"""Fix for a refusal of another reason."""
KEY = "VLLM_API_KEY"
"""Environment variable with the key of the server, which vLLM reads too."""


class Refused(UserError):
    """An answer with an HTTP status other than 200.

    Attributes:
        status: the HTTP status.
        reason: the server's message, on one line.
    """

    def __init__(self, message: str, status: int, reason: str):
        super().__init__(message)
        self.status, self.reason = status, reason

    def with_fix(self, fix: str) -> UserError:
        """Returns an error that also names a fix: a missing or wrong key, or else the given one."""
        fix = f"set {KEY} to the server's key" if self.status == http.client.UNAUTHORIZED else fix
        return UserError(f"{self}; {fix}")


@dataclasses.dataclass(frozen=True)
class Client:
    """Client of one server. Each request opens a connection; proxies of the environment and redirects are not used.

    Attributes:
        url: address of the API, such as "http://127.0.0.1:8000/v1".
        timeout: largest number of seconds of a request.

    Raises:
        UserError: the address is not one of an HTTP server.

    >>> Client("ftp://host").url
    Traceback (most recent call last):
    ...
    mass_jax.errors.UserError: --sampler_url='ftp://host' is not an address like http://127.0.0.1:8000/v1
    """

    url: str
    timeout: float = 600.0

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and parts.username is None
        except ValueError:  # the port is not a number
            good = False
        if not good or parts.query or parts.fragment or not self.url.isascii() or not self.url.isprintable():
            raise UserError(f"--sampler_url={self.url!r} is not an address like http://127.0.0.1:8000/v1")

    def get(self, path: str, limit: int) -> Any:
        """Returns the JSON value at a path.

        Args:
            path: path below `url`, such as "models".
            limit: largest number of bytes of the answer.

        Raises:
            UserError: the server cannot be reached, or its answer is late, too long, refused or not JSON.
        """
        return self._parsed(self._request("GET", path, None, limit))

    def post(self, path: str, body: dict[str, Any], limit: int) -> Any:
        """Returns the JSON value that the server answers to a JSON body; see `get`."""
        return self._parsed(self.send(path, body, limit))

    def send(self, path: str, body: dict[str, Any], limit: int) -> bytes:
        """Returns the bytes that the server answers to a JSON body; see `get`."""
        return self._request("POST", path, json.dumps(body).encode(), limit)

    def _parsed(self, answer: bytes) -> Any:
        try:
            return strict_json.loads(answer)
        except ValueError as error:
            raise UserError(
                f"the answer of --sampler_url={self.url} is {error}; give the address of a server"
            ) from None

    def _request(self, method: str, path: str, body: bytes | None, limit: int) -> bytes:
        parts, deadline = urllib.parse.urlsplit(self.url), time.monotonic() + self.timeout
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
        try:
            connection.request(method, f"{parts.path.rstrip('/')}/{path}", body, headers)
            with connection.getresponse() as response:
                answer = self._read(response, limit, deadline)
        except TimeoutError:
            raise UserError(
                f"--sampler_url={self.url} did not answer within {self.timeout:g} s; raise --sampler_timeout, or "
                f"restart the server"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            reason = _one_line(str(error)) or type(error).__name__
            raise UserError(f"--sampler_url={self.url} cannot be reached ({reason}); start the server") from None
        finally:
            connection.close()
        if response.status != http.client.OK:
            status, reason = response.status, _message(answer)
            raise Refused(f"--sampler_url={self.url} refused /{path} (HTTP {status}: {reason})", status, reason)
        return answer

    def _read(self, response: http.client.HTTPResponse, limit: int, deadline: float) -> bytes:
        """Reads an answer; stops at the limit and at the deadline."""
        pieces, size = [], 0
        while piece := response.read1(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise UserError(
                    f"--sampler_url={self.url} answered more than {limit} bytes; give the address of a "
                    f"completions server"
                )
            if time.monotonic() > deadline:
                raise TimeoutError
        return b"".join(pieces)


def _message(answer: bytes) -> str:
    """Returns the message of an error, from OpenAI's JSON or as text."""
    try:
        value = strict_json.loads(answer)
    except ValueError:
        value = answer.decode(errors="replace")
    for key in ("error", "message", "detail"):
        value = value.get(key, value) if isinstance(value, dict) else value
    return _one_line(value if isinstance(value, str) else json.dumps(value))


def _one_line(text: str) -> str:
    """Returns the start of a text as one printable line."""
    text = " ".join(text[: 10 * _SHOWN].split())
    return "".join(c if c.isprintable() else "?" for c in text)[:_SHOWN]
