"""What a process that reads answers of a model may use: time, memory, files, processes, and no evaluator of Python."""

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
# sympy writes products of monomials as code, from nothing but the number of variables.
_OWN_CODE = os.path.join("sympy", "polys", "monomials.py")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on the checking of one answer.

    Args:
        cpu_seconds: of computing; what decides on a loaded machine as on an idle one.
        wall_seconds: of waiting, for a process that sleeps or is starved.
        memory_bytes: of address space.
    """

    cpu_seconds: float = 2.0
    wall_seconds: float = 20.0
    memory_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name}={getattr(self, field.name)} allows nothing; give a positive limit")


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when `parent` dies (Linux); elsewhere the end of a pipe has to do.

    Args:
        parent: process id; if it is gone already, this process exits.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def restrain(memory_bytes: int) -> None:
    """Bounds memory, and forbids files to grow, core dumps and (but for root) new processes; irrevocably."""
    for name, value in (
        ("RLIMIT_AS", memory_bytes),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_NPROC", 0),
    ):
        limit = getattr(resource, name, None)  # not every system has all of them
        if limit is not None:
            hard = resource.getrlimit(limit)[1]
            bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (bounded, bounded))


def seal() -> None:
    """Has the interpreter refuse evaluation of text, writing, new processes, threads and connections; irrevocably.

    A second wall behind the readers, which never ask for any of it.
    """
    sys.addaudithook(_refuse)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event.startswith(_FORBIDDEN_EVENTS):
        raise PermissionError(f"{event} is not allowed where answers are checked")
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        raise PermissionError("writing is not allowed where answers are checked")
    if event in ("compile", "exec"):
        name = args[1] if event == "compile" else getattr(args[0], "co_filename", "<string>")
        # Modules come from files, or are frozen into the interpreter; text to be evaluated is "<string>" or the like
        from_text = not isinstance(name, str) or (name.startswith("<") and not name.startswith("<frozen "))
        if from_text and not sys._getframe(1).f_code.co_filename.endswith(_OWN_CODE):
            raise PermissionError("evaluation of text is not allowed where answers are checked")
