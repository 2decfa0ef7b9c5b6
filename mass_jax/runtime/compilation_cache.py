"""Cache of compiled programs on disk, shared by all runs of a user."""

import contextlib
import hashlib
import os
import pathlib
import platform
import tempfile
import warnings
from typing import Any

import jax
from absl import logging

from mass_jax.runtime.paths import user_cache

OFF = "off"
AUTO = "auto"
MAX_BYTES = 4 * 2**30
SHORTEST = 0.05  # seconds; shorter compilations are not worth a file
_FAILED = tuple(f"Error {action} persistent compilation cache entry" for action in ("reading", "writing"))


def use_compilation_cache(directory: str) -> pathlib.Path | None:
    """Lets this process keep compiled programs in a directory, and reuse those that are there.

    Several processes may share the directory: JAX reads and writes it under a file lock, and removes the entries that
    were used least recently. A program whose entry cannot be read is compiled again; the first such error is logged.
    Where the environment variable JAX_COMPILATION_CACHE_DIR is set, nothing changes.

    Args:
        directory: "auto" for mass_jax in the user's cache directory; "off" for none; or a path.

    Returns:
        The directory. None with "off", and after a warning that the directory cannot be written.
    """
    if directory == OFF or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    try:
        path = default_directory() if directory == AUTO else pathlib.Path(directory).resolve()
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass  # JAX would fail for every program
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        logging.warning("no compilation cache: %s; pass --compilation_cache=DIR, or off", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    # JAX would otherwise put absolute paths of XLA's own caches into the options of GPU programs.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    _log_first_error(path)
    return path


def _log_first_error(path: pathlib.Path) -> None:
    """Logs JAX's first warning that the cache failed, with the fix, and drops the others, one for every program."""
    show, seen = warnings.showwarning, False

    def show_once(message: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal seen
        if not str(message).startswith(_FAILED):
            show(message, *args, **kwargs)
        elif not seen:
            seen = True
            reason = str(message).partition("\n")[0]
            logging.warning("%s; the program is compiled instead; to repair the cache, delete %s", reason, path)

    warnings.showwarning = show_once


def default_directory() -> pathlib.Path:
    """Returns the user's directory for this kind of CPU, since different machines may share a home directory."""
    return user_cache() / "compiled" / _cpu()


def _cpu() -> str:
    """Returns a hash of the CPU's instruction sets: code for one CPU may crash on another."""
    kind = platform.machine()
    with contextlib.suppress(OSError):  # the file exists on Linux only
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kind += "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    return hashlib.sha256(kind.encode()).hexdigest()[:16]
