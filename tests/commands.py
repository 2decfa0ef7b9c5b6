"""Commands under test: in this process for input checks, as processes of their own for everything else."""

import concurrent.futures
import contextlib
import copy
import dataclasses
import importlib.util
import io
import pathlib
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping

import jax
from absl import app, flags, logging

from mass_jax import runtime

ROOT = pathlib.Path(__file__).parent.parent
DEFINE_ON_IMPORT = ("experiments.train", "experiments.evaluate")


@dataclasses.dataclass(frozen=True)
class Done:
    """Exit status and output of a command."""

    returncode: int
    stdout: str
    stderr: str


def command(module: str, *arguments: str) -> list[str]:
    """Returns the command line of a command."""
    return [sys.executable, "-m", f"experiments.{module}", *arguments]


def as_process(
    module: str, *arguments: str, env: Mapping[str, str], cwd: pathlib.Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command as a process."""
    given = command(module, *arguments)
    return subprocess.run(given, env=env, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


def in_process(module: str, *arguments: str) -> Done:
    """Runs the `__main__` block of a command in this process, with flags as a new process has them.

    It has the eight devices of the tests, so programs of a run on one device take a process.
    """
    path = importlib.util.find_spec(f"experiments.{module}").origin
    output, errors, status = io.StringIO(), io.StringIO(), 0
    with (
        fresh_flags(),
        _logging_to(errors),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        _arguments([path, *arguments]),
    ):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Done(status, output.getvalue(), errors.getvalue())


@contextlib.contextmanager
def locked_elsewhere(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a workdir in another thread, since a thread may lock the same workdir again."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        held = runtime.lock_workdir(workdir)
        thread.submit(held.__enter__).result()
        try:
            yield
        finally:
            thread.submit(held.__exit__, None, None, None).result()


@contextlib.contextmanager
def fresh_flags() -> Iterator[None]:
    """Leaves absl's own flags only, so that a command can define its own; then restores all flags."""
    app.define_help_flags()
    before, fresh = dict(flags.FLAGS.__dict__), flags.FlagValues()
    for name, defined in flags.FLAGS.flags_by_module_dict().items():
        if name.startswith("absl."):
            for flag in defined:
                fresh[flag.name] = copy.deepcopy(flag)
    modules = {name: sys.modules.pop(name) for name in DEFINE_ON_IMPORT if name in sys.modules}
    platforms = jax.config.jax_platforms
    flags.FLAGS.__dict__.clear()
    flags.FLAGS.__dict__.update(fresh.__dict__)
    try:
        yield
    finally:
        flags.FLAGS.__dict__.clear()
        flags.FLAGS.__dict__.update(before)
        jax.config.update("jax_platforms", platforms)
        for name in DEFINE_ON_IMPORT:
            sys.modules.pop(name, None)
        sys.modules.update(modules)


@contextlib.contextmanager
def _logging_to(stream: io.StringIO) -> Iterator[None]:
    """Sends absl's log to a stream; a new process logs from level INFO."""
    root, handler, verbosity = logging.logging.getLogger(), logging.get_absl_handler(), logging.get_verbosity()
    attached, filters = handler in root.handlers, list(handler.filters)
    before = handler.python_handler.setStream(stream)
    logging.set_verbosity(logging.INFO)
    if not attached:
        root.addHandler(handler)
    try:
        yield
    finally:
        handler.python_handler.setStream(before)
        handler.filters[:] = filters
        logging.set_verbosity(verbosity)
        if not attached:
            root.removeHandler(handler)


@contextlib.contextmanager
def _arguments(argv: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before
