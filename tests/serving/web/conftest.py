"""A service of the embedded model whose writer tests can pause, and servers and clients for it."""

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest

from mass_jax import serving
from mass_jax.audit import log
from mass_jax.serving import stages
from mass_jax.serving.guards import policy
from mass_jax.serving.web import app, server

JSON = {"Content-Type": "application/json"}
# The gates that run no model, which would take longer to compile.
POLICY = policy.Policy(gates={name: {} for name in ("length", "parse", "copy", "duplicates")})


class Writer:
    """Writes examples with the model, or `texts`; waits while it is paused."""

    def __init__(self):
        self.texts, self._running, self.entered = None, threading.Event(), threading.Event()
        self._running.set()

    def __call__(self, model, tasks, keys_N):
        self.entered.set()
        assert self._running.wait(60)
        if isinstance(self.texts, Exception):
            raise self.texts
        return stages.write(model, tasks, keys_N) if self.texts is None else [self.texts] * len(tasks)

    @contextlib.contextmanager
    def paused(self):
        """Context in which batches stop before their examples are written."""
        self.entered.clear()
        self._running.clear()
        try:
            yield
        finally:
            self._running.set()


class Client:
    """A client of a server at a port."""

    def __init__(self, port):
        self.port, self.open = port, contextlib.ExitStack()

    def connect(self):
        """Returns a new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def request(self, method, path, body=None, headers=None):
        """Returns status, headers and body of one request."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read().decode()

    def post(self, row, **headers):
        """Posts a question; returns status, headers and the parsed body."""
        headers = JSON | headers
        status, found, text = self.request("POST", "/v1/answers", json.dumps(row), headers)
        return status, found, json.loads(text) if found["content-type"] == "application/json" else events_in(text)

    def answer(self, problem, name=None):
        """Asks without streaming and returns the answer."""
        status, _, row = self.post({"problem": problem, "id": name, "stream": False})
        assert status == 200, row
        return row

    def start(self, problem):
        """Posts a question, and returns its open response once it is accepted."""
        connection = self.open.enter_context(contextlib.closing(self.connect()))
        connection.request("POST", "/v1/answers", json.dumps({"problem": problem}), JSON)
        response = connection.getresponse()
        assert response.status == 200
        assert response.readline() == b"event: accepted\n"
        return response

    def disconnect(self, response):
        """Closes the connection of an open response."""
        response.fp.raw._sock.shutdown(socket.SHUT_RDWR)
        response.close()

    def health(self):
        """Returns status and body of /healthz."""
        status, _, text = self.request("GET", "/healthz")
        return status, json.loads(text)

    def wait_for(self, **wanted):
        """Waits until /healthz has these values."""
        for _ in range(200):
            row = self.health()[1]
            if wanted.items() <= row.items():
                return
            time.sleep(0.02)
        raise AssertionError(f"{row} never had {wanted}")


def events_in(text):
    """Server-sent events as pairs of name and data, without comments."""
    parts = [part.split("\n") for part in text.split("\n\n") if part and not part.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


@contextlib.contextmanager
def serving_at(service, queue=8, grace=30.0, body=4096, port=0):
    """Runs a server in a thread; yields a client with the server as `server`."""
    listening = server.listen("127.0.0.1", port)
    served = app.AnswerApp(service, app.Limits(queue=queue, body=body, body_seconds=0.5))
    running = server.AnswerServer(served, listening, connections=32, grace=grace)
    client = Client(listening.getsockname()[1])
    client.server = running
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        with client.open:
            yield client
    finally:
        running.stop()
        thread.join()
        served.close()


@pytest.fixture(scope="module")
def writer():
    return Writer()


@pytest.fixture(scope="module")
def service(writer, tmp_path_factory):
    path = tmp_path_factory.mktemp("serving") / "events.jsonl"
    with serving.load("tiny", policy_file=POLICY, log=path, batch=4, writer=writer) as service:
        yield service


@pytest.fixture
def records(service):
    """Returns a function that lists the records that the log got during the test, of one kind."""
    before = log.verify(service.log_path).head.number

    def of_kind(kind):
        return [r for r, _ in log.records(service.log_path) if r["number"] > before and r["kind"] == kind]

    return of_kind


@pytest.fixture
def serve(service):
    """Returns a function that runs a server of the service."""
    return lambda **changes: serving_at(service, **changes)
