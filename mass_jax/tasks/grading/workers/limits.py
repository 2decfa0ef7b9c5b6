"""Resource limits and a sandbox for processes that parse model output."""

import ctypes
import dataclasses
import os
import resource
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_FORBIDDEN_EVENTS = (
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.kill",
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate",
    "os.putenv", "subprocess.Popen", "pty.spawn", "socket.", "shutil.", "urllib.", "ftplib.", "http.", "smtplib.",
    "ctypes.dlopen", "pickle.find_class", "webbrowser.", "tempfile.", "_thread.start_new_thread",
)  # fmt: skip
# sympy generates code for products of monomials, which depends only on the number of variables.
_OWN_CODE = os.path.join("sympy", "polys", "monomials.py")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on the check of one answer.

    Attributes:
        cpu_seconds: CPU time in seconds; independent of the load on the machine.
        wall_seconds: Wall-clock time in seconds, for a process that sleeps or is not scheduled.
        memory_bytes: Address space in bytes.

    Raises:
        ValueError: If a limit is not positive.
    """

    cpu_seconds: float = 2.0
    wall_seconds: float = 20.0
    memory_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name}={getattr(self, field.name)} must be positive")


def die_with_parent(parent: int) -> None:
    """Makes the kernel kill this process when `parent` dies (Linux only; elsewhere, closed pipes end the process).

    Args:
        parent: Process id of the parent; if it has already died, this process exits.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def restrain(memory_bytes: int) -> None:
    """Irrevocably limits memory and forbids file growth, core dumps and (except for root) new processes."""
    for name, value in (
        ("RLIMIT_AS", memory_bytes),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_NPROC", 0),
    ):
        limit = getattr(resource, name, None)  # not available on every system
        if limit is not None:
            hard = resource.getrlimit(limit)[1]
            bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (bounded, bounded))


def seal() -> None:
    """Irrevocably makes the interpreter refuse evaluation of text, writing, new processes, threads and connections.

    This is a second line of defense: the parsers use none of these.
    """
    sys.addaudithook(_refuse)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event.startswith(_FORBIDDEN_EVENTS):
        raise PermissionError(f"{event} is not allowed in a verifier process")
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        raise PermissionError("writing is not allowed in a verifier process")
    if event in ("compile", "exec"):
        name = args[1] if event == "compile" else getattr(args[0], "co_filename", "<string>")
        # Modules have a file name or "<frozen ...>"; evaluated text has "<string>" or similar.
        from_text = not isinstance(name, str) or (name.startswith("<") and not name.startswith("<frozen "))
        if from_text and not sys._getframe(1).f_code.co_filename.endswith(_OWN_CODE):
            raise PermissionError("evaluation of text is not allowed in a verifier process")
