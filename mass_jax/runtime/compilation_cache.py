"""Cache of compiled programs on disk, shared by all runs of a user."""

import contextlib
import hashlib
import os
import pathlib
import platform
import tempfile

import jax
from absl import logging

OFF = "off"
AUTO = "auto"
MAX_BYTES = 4 * 2**30


def use_compilation_cache(directory: str) -> pathlib.Path | None:
    """Lets this process keep compiled programs in a directory, and reuse those that are there.

    Several processes may share the directory: JAX reads and writes it under a file lock, and removes the entries that
    were used least recently. A program whose entry cannot be read is compiled again, with a warning of JAX. The
    environment variable JAX_COMPILATION_CACHE_DIR comes first: where it is set, nothing changes.

    Args:
        directory: "auto" for mass_jax in the user's cache directory; "off" for none; or a path.

    Returns:
        The directory. None with "off", and after a warning that the directory cannot be written.
    """
    if directory == OFF or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    try:
        path = _default() if directory == AUTO else pathlib.Path(directory).expanduser()
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass  # a directory that cannot be written would warn at every program
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        logging.warning("no compilation cache: %s; pass --compilation_cache=DIR, or off", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    # The defaults skip programs that take less than a second, of which a small run has a hundred.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    # JAX would otherwise put absolute paths of XLA's own caches into the options of GPU programs.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    return path


def _default() -> pathlib.Path:
    """Returns a directory for this kind of CPU, since machines with different ones may share a home directory."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = pathlib.Path(given) if os.path.isabs(given) else pathlib.Path.home() / ".cache"
    return base / "mass_jax" / "compiled" / _cpu()


def _cpu() -> str:
    """Returns a hash of the CPU's instruction sets: code for one CPU may crash on another."""
    kind = platform.machine()
    with contextlib.suppress(OSError):  # the file exists on Linux only
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kind += "".join(
            sorted({line for line in lines if line.lower().startswith(("flags", "features", "model name"))})
        )
    return hashlib.sha256(kind.encode()).hexdigest()[:16]
