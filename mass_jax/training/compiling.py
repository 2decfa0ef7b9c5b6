"""Progress of compilations, which can take minutes on large models, and compilation ahead of time in threads."""

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.monitoring
from absl import logging

from mass_jax.errors import first_line

_COMPILED = "/jax/core/compile/backend_compile_duration"  # also after a program was read from the cache
_CACHE_HIT = "/jax/compilation_cache/cache_hits"
_SHORTEST = 0.1  # seconds of a compilation to report


class _Log(threading.local):
    """What this thread compiled last: when it ended, how many programs, and how many of them came from the cache."""

    ended = 0.0
    programs = 0
    cached = 0


_log = _Log()
_listening = threading.Lock()
_is_listening = False
_announced: set[str] = set()
_ahead: dict[str, concurrent.futures.Future[bool]] = {}


@contextlib.contextmanager
def announced(program: str) -> Iterator[None]:
    """Context in which a program is called that may have to be compiled; logs that, and then how long it took.

    The first line appears once per process and name, so a name should change whenever the function is compiled again.
    The second one appears whenever something was compiled, or read from the compilation cache, in at least 0.1 s. A
    program that is compiled ahead of time has logged both; the context waits for it.

    Args:
        program: name of the program, with the shapes that cause another compilation.

    >>> with announced("the sum"):
    ...     total = jax.jit(lambda x: x + x)(1)
    """
    future = _ahead.pop(program, None)
    if future is not None and future.result():
        yield
        return
    if program not in _announced:
        _announced.add(program)
        logging.info("compiling %s ...", program)
    with _timed(program):
        yield


@contextlib.contextmanager
def ahead(programs: Mapping[str, Callable[[], object]], threads: int) -> Iterator[None]:
    """Context that compiles programs ahead of time in threads.

    A program that cannot be compiled is left to its call, which raises the error. At the end, programs that have not
    been started are dropped.

    Args:
        programs: functions that compile, by the names that `announced` uses.
        threads: number of programs to compile at once; 0 compiles nothing ahead of time.
    """
    if not threads or not programs:
        yield
        return
    pool = concurrent.futures.ThreadPoolExecutor(threads, "compile")
    try:
        for name, compile_one in programs.items():
            _ahead[name] = pool.submit(_compile, name, compile_one)
        _announced.update(programs)
        logging.info("compiling ahead of time, in this order: %s ...", "; ".join(programs))
        yield
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for name in programs:
            _ahead.pop(name, None)


def _compile(name: str, compile_one: Callable[[], object]) -> bool:
    """Compiles one program in a thread; returns whether that succeeded."""
    try:
        with _timed(name):
            compile_one()
    except Exception as error:  # the compiler's errors have no common class
        logging.info("could not compile %s ahead of time: %s", name, first_line(error))
        return False
    return True


@contextlib.contextmanager
def _timed(program: str) -> Iterator[None]:
    """Logs how long this thread took to compile, from the start of the context to the end of the last compilation."""
    _listen()
    began, programs, cached = time.monotonic(), _log.programs, _log.cached
    yield
    if _log.programs > programs and _log.ended - began >= _SHORTEST:
        from_cache = _log.programs - programs == _log.cached - cached
        done = "read %s from the compilation cache in %.1f s" if from_cache else "compiled %s in %.1f s"
        logging.info(done, program, _log.ended - began)


def _listen() -> None:
    """Registers for the events of JAX's compiler, once per process."""
    global _is_listening
    with _listening:
        if not _is_listening:
            jax.monitoring.register_event_duration_secs_listener(_note_compiled)
            jax.monitoring.register_event_listener(_note_cached)
            _is_listening = True


def _note_compiled(event: str, *_: object, **__: object) -> None:
    if event == _COMPILED:
        _log.ended, _log.programs = time.monotonic(), _log.programs + 1


def _note_cached(event: str, **_: object) -> None:
    if event == _CACHE_HIT:
        _log.cached += 1
