"""Line protocol between the pool and its worker processes: one request per line, one reply per line."""

import json
import select

from mass_jax.tasks.base import Verdict

WORKER = "mass_jax.tasks.grading.workers.worker"
SYMBOLIC_ANSWERS = "mass_jax.tasks.grading.workers.symbolic_answers"
MAX_LINE_BYTES = 32_768  # less than a pipe's buffer, so that one write sends a request
READY = b"ready\n"
LOST = b"lost\n"  # the checker died repeatedly, not because of the time or memory limit


def question(gold: str, answer: str) -> bytes:
    """Encodes a pair of answers as one line of ASCII.

    Example:
        >>> question("1", "½")
        b'["1", "\\\\u00bd"]\\n'
    """
    return json.dumps([gold, answer]).encode() + b"\n"


def reply(verdict: Verdict) -> bytes:
    """Encodes a verdict as a line."""
    return verdict.value.encode() + b"\n"


def verdict(line: bytes) -> Verdict:
    """Decodes a verdict; `LOST` counts as exceeding the limits."""
    return Verdict.TIMED_OUT if line == LOST else Verdict(line.decode().strip())


def readable(descriptor: int, seconds: float) -> bool:
    """Waits until a descriptor has data or is closed.

    Args:
        descriptor: File descriptor.
        seconds: Timeout in seconds.

    Returns:
        Whether it is readable before the timeout.
    """
    # `select` would fail for descriptors of 1024 and above.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))
