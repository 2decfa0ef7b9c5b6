"""Rendezvous of the processes of a run, before JAX connects them.

When a process does not connect in time, JAX's client aborts the others from C++ with a stack trace. Process 0 therefore
waits on the coordinator's port until all processes have connected, and then frees the port for JAX.
"""

import asyncio
import contextlib
import errno
import ipaddress
import json
import socket
import string
import time

from mass_jax.errors import UserError

_HOST_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-_.")
_GREETING_SECONDS = 5.0  # for a connection to send its greeting
_BIND_SECONDS = 5.0  # for an earlier run to free the port
_LINE_LIMIT = 4096
# Raised while parsing a line that is not a greeting or reply, such as a port scanner's.
_STRANGE = (OSError, ValueError, TypeError, KeyError, TimeoutError, RecursionError)


class Absent(Exception):
    """Raised if processes do not connect in time."""


def parse_address(coordinator: str) -> tuple[str, int]:
    """Splits host:port, where the host is a name, an IPv4 address, or an IPv6 address in brackets.

    Returns:
        The host, without brackets, and the port.

    Raises:
        UserError: If the address is malformed; the message names the value and shows the correct form.

    >>> parse_address("[2001:db8::2]:12345")
    ('2001:db8::2', 12345)
    """
    bracketed = coordinator.startswith("[")
    host, _, port = coordinator[1:].rpartition("]:") if bracketed else coordinator.rpartition(":")
    right_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 2**16
    if bracketed:
        valid = _is_address(host, ipaddress.IPv6Address)
    elif _is_address(host, ipaddress.IPv6Address) or _is_address(coordinator, ipaddress.IPv6Address):
        known = f"[{host}]:{port}" if right_port and _is_address(host, ipaddress.IPv6Address) else "[::1]:12345"
        raise UserError(
            f"--coordinator={coordinator!r} is not host:port; write an IPv6 address in brackets, like {known}"
        )
    else:
        valid = _is_host(host)
    if not valid:
        raise UserError(
            f"--coordinator={coordinator!r} is not host:port; write it like 10.0.0.2:12345 or [2001:db8::2]:12345"
        )
    if not right_port:
        raise UserError(
            f"--coordinator={coordinator!r} is not host:port; its port must be a number from 1 to 65535, "
            f"like 10.0.0.2:12345"
        )
    return host, int(port)


def _is_address(text: str, kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _is_host(text: str) -> bool:
    """Returns whether a text is an IPv4 address or a valid host name."""
    labels = text.removesuffix(".").split(".")
    if labels[-1].isdecimal():
        return _is_address(text, ipaddress.IPv4Address)
    return len(text) < 254 and set(text) <= _HOST_CHARACTERS and all(0 < len(label) < 64 for label in labels)


def meet(host: str, port: int, num_processes: int, process_id: int, timeout: float) -> None:
    """Waits until all processes of the run have connected.

    Args:
        host, port: address of process 0.
        num_processes: number of processes.
        process_id: index of this process.
        timeout: seconds to wait.

    Raises:
        Absent: If they do not connect within `timeout` seconds.
        UserError: If the port is in use, or the processes contradict each other.
    """
    if process_id == 0:
        asyncio.run(_receive(port, num_processes, timeout))
    else:
        _visit(host, port, num_processes, process_id, time.monotonic() + timeout)


async def _receive(port: int, num_processes: int, timeout: float) -> None:
    """Waits as process 0 for the others, frees the port and tells them to proceed."""
    present: dict[int, asyncio.StreamWriter] = {}
    complete = asyncio.Event()
    connections: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[asyncio.current_task()] = writer
        try:
            peer, theirs = _read_greeting(await asyncio.wait_for(reader.readline(), _GREETING_SECONDS))
            if theirs != num_processes or not 0 < peer < num_processes:
                counts = f"process 0 has --num_processes={num_processes}, this process {theirs}"
                return await _reply(writer, f"{counts}; give all processes the same")
            if peer in present:
                await _reply(present[peer], f"another process connected with --process_id={peer}; give each its own")
            present[peer] = writer
            if len(present) == num_processes - 1:
                complete.set()
            await reader.read()  # returns when the peer disconnects
            if present.get(peer) is writer and not complete.is_set():
                del present[peer]
        except _STRANGE:
            pass
        finally:
            writer.close()
            del connections[asyncio.current_task()]

    server = await asyncio.start_server(greet, sock=await _listen(port), limit=_LINE_LIMIT)
    try:
        await asyncio.wait_for(complete.wait(), timeout)
        refusal = ""
    except TimeoutError:
        missing = ", ".join(str(i) for i in range(1, num_processes) if i not in present)
        refusal = f"missing after {timeout:g} s: process {missing}"
    server.close()  # JAX must bind the port before the others connect to it
    for writer in list(present.values()):
        await _reply(writer, refusal)
    pending = [task for task in connections if task is not None]
    for writer in connections.values():
        writer.close()  # ends the task of the connection
    if pending:
        await asyncio.wait(pending, timeout=1)
    if refusal:
        raise Absent(refusal)


async def _listen(port: int) -> socket.socket:
    """Opens a socket that listens on all addresses, as JAX will."""
    deadline, ipv6 = time.monotonic() + _BIND_SECONDS, socket.has_dualstack_ipv6()
    while True:
        try:
            if ipv6:
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("", port))
        except OSError as error:
            if ipv6 and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # IPv6 is compiled in but disabled
                ipv6 = False
            elif error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise UserError(
                    f"process 0 cannot listen on port {port} ({error.strerror}); is another run on that port? "
                    f"give another in --coordinator"
                ) from None
            else:
                await asyncio.sleep(0.2)


def _read_greeting(line: bytes) -> tuple[int, int]:
    """Returns the process id and number of processes of a greeting; raises one of `_STRANGE` on any other line."""
    said = json.loads(line)
    return int(said["process_id"]), int(said["num_processes"])


async def _reply(writer: asyncio.StreamWriter, refusal: str) -> None:
    """Sends the reason of a refusal, or "" to proceed."""
    with contextlib.suppress(OSError):
        writer.write((json.dumps({"mass_jax": refusal}) + "\n").encode())
        await writer.drain()


def _visit(host: str, port: int, num_processes: int, process_id: int, deadline: float) -> None:
    """Connects to process 0, repeatedly until it answers."""
    greeting = (json.dumps({"process_id": process_id, "num_processes": num_processes}) + "\n").encode()
    while (left := deadline - time.monotonic()) > 0:
        refusal = _ask(host, port, greeting, left)
        if refusal:
            raise UserError(f"process {process_id} cannot join at --coordinator: {refusal}")
        if refusal is not None:
            return _await_port(host, port, deadline)
        time.sleep(0.2)
    raise Absent("process 0 did not answer")


def _ask(host: str, port: int, greeting: bytes, timeout: float) -> str | None:
    """Waits for the reply of process 0; None if process 0 cannot be reached."""
    try:
        with socket.create_connection((host, port), timeout=min(_GREETING_SECONDS, timeout)) as connection:
            connection.sendall(greeting)
            connection.settimeout(timeout)
            with connection.makefile("rb") as reader:
                return str(json.loads(reader.readline(_LINE_LIMIT))["mass_jax"])
    except _STRANGE:
        return None


def _await_port(host: str, port: int, deadline: float) -> None:
    """Waits until JAX's coordinator in process 0 listens; otherwise JAX's client would abort this process."""
    while time.monotonic() < deadline:
        try:
            return socket.create_connection((host, port), timeout=_GREETING_SECONDS).close()
        except OSError:
            time.sleep(0.1)
    raise Absent("process 0 left")
