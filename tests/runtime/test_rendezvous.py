"""Tests for mass_jax.runtime.rendezvous, with threads in place of processes and real sockets."""

import concurrent.futures
import contextlib
import socket
import time

import pytest

from experiments.launch import free_port
from mass_jax.errors import UserError
from mass_jax.runtime import rendezvous
from mass_jax.runtime.rendezvous import Absent, meet, parse_address


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("10.1.2.3:1", ("10.1.2.3", 1)),
        ("node-7.cluster_a.local:65535", ("node-7.cluster_a.local", 65535)),
        ("[fe80::2]:8080", ("fe80::2", 8080)),
        ("[::ffff:10.0.0.1]:99", ("::ffff:10.0.0.1", 99)),
    ],
)
def test_parse_address_splits_host_and_port(given, expected):
    assert parse_address(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        *(
            "host",
            "host:",
            ":8080",
            "host:0",
            "host:65536",
            "host:99999999999999999999",
            "host:-1",
            "host:80 ",
            " host:80",
        ),
        *("tcp://10.0.0.1:80", "10.0.0.256:80", "10.0.0:80", "1234:80", "host:8080/path", "ho st:80", "hôte:80"),
        *(
            "host:８０",
            "host:²",
            "a..b:80",
            "[::1]",
            "[::1]:",
            "[::1:80",
            "::1]:80",
            "[host]:80",
            "[]:80",
            "[::1]:x",
            "\n",
        ),
        *("user@host:80", "host:80\n", "x" * 300 + ":80", "AUTO", ":", "[", "]", "\n", " host:80"),
    ],
)
def test_parse_address_refuses_malformed(given):
    with pytest.raises(UserError, match="is not host:port") as caught:
        parse_address(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "fix"),
    [("fe80::2:8080", r"\[fe80::2\]:8080"), ("2001:db8::2:12345", r"\[2001:db8::2\]:12345"), ("::1", r"\[::1\]:12345")],
)
def test_parse_address_names_brackets(given, fix):
    with pytest.raises(UserError, match=f"in brackets, like {fix}$"):
        parse_address(given)


def start(pool, port, process_id, num_processes=3, timeout=20.0):
    return pool.submit(meet, "127.0.0.1", port, num_processes, process_id, timeout)


def connect(port):
    """Connects to process 0, which may not listen yet."""
    for _ in range(50):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        time.sleep(0.1)
    raise AssertionError("nobody listens")


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor() as threads:
        yield threads


@pytest.fixture
def service():
    """Imitates JAX: listens on the port that process 0 has freed."""
    made = []

    def serve(port):
        made.append(socket.create_server(("", port)))

    yield serve
    for each in made:
        each.close()


def test_meet_waits_for_late_processes(pool, service):
    port = free_port()
    early = start(pool, port, 2)
    first = start(pool, port, 0)
    time.sleep(0.5)
    assert not first.done()
    late = start(pool, port, 1)
    first.result()
    service(port)  # the port is free again
    early.result()
    late.result()


def test_meet_names_missing_processes(pool):
    port = free_port()
    first = start(pool, port, 0, num_processes=4, timeout=1.5)
    present = start(pool, port, 2, num_processes=4)
    with pytest.raises(Absent, match=r"missing after 1\.5 s: process 1, 3$"):
        first.result()
    with pytest.raises(UserError, match=r"process 2 cannot join .* missing after 1\.5 s: process 1, 3"):
        present.result()


def test_meet_refuses_contradicting_processes(pool, service):
    port = free_port()
    first = start(pool, port, 0)
    with pytest.raises(UserError, match="process 0 has --num_processes=3, this process 2"):
        start(pool, port, 1, num_processes=2).result()
    twin = start(pool, port, 1)
    time.sleep(0.5)
    others = [start(pool, port, 1)]
    with pytest.raises(UserError, match="another process connected with --process_id=1; give each its own"):
        twin.result()
    others.append(start(pool, port, 2))
    first.result()
    service(port)
    for other in others:
        other.result()


def test_meet_ignores_foreign_connections(pool, service, caplog):
    port = free_port()
    first = start(pool, port, 0, num_processes=2)
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000, b"[" * 4000 + b"\n", b'{"process_id": null}\n'):
        with connect(port) as stranger:
            stranger.sendall(said)
    silent = connect(port)
    assert not first.done()
    peer = start(pool, port, 1, num_processes=2)
    first.result()
    service(port)
    peer.result()
    silent.close()
    assert not caplog.records


def test_meet_names_taken_port(pool, monkeypatch):
    monkeypatch.setattr(rendezvous, "_BIND_SECONDS", 0.1)
    with socket.create_server(("", 0)) as other, pytest.raises(UserError, match="is another run on that port"):
        start(pool, other.getsockname()[1], 0).result()
