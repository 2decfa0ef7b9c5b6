"""What the pool and its worker processes say to each other: one line a question, one line an answer."""

import json
import select

from mass_jax.tasks.base import Verdict

WORKER = "mass_jax.tasks.grading.workers.worker"
READY = b"ready\n"
LOST = b"lost\n"  # the checker died again and again, of neither time nor memory


def question(gold: str, answer: str) -> bytes:
    """A pair of answers as one line of ASCII.

    >>> question("1", "½")
    b'["1", "\\\\u00bd"]\\n'
    """
    return json.dumps([gold, answer]).encode() + b"\n"


def reply(verdict: Verdict) -> bytes:
    """A verdict as a line."""
    return verdict.value.encode() + b"\n"


def verdict(line: bytes) -> Verdict:
    """The verdict of a line; an answer whose checkers all died counts as beyond its limits."""
    return Verdict.TIMED_OUT if line == LOST else Verdict(line.decode().strip())


def readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read, or the end, within a time; unlike `select`, for any number of open files."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))
