"""Checksums of checkpoint files, which detect corruption on disk before a checkpoint is used."""

import concurrent.futures
import hashlib
import json
import pathlib

import jax

from mass_jax.runtime.distributed import num_processes
from mass_jax.runtime.workdir import write_atomically

CHECKSUMS = "checksums.json"
_READERS = 4  # hashing releases the GIL


class DamagedCheckpoint(Exception):
    """Raised if the files of a checkpoint differ from those that were saved."""


def write_checksums(directory: pathlib.Path) -> None:
    """Writes the SHA-256 digest of every file of a complete checkpoint to `checksums.json` in its directory.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     _ = (pathlib.Path(name) / "array").write_bytes(b"abc")
    ...     write_checksums(pathlib.Path(name))
    ...     verify(pathlib.Path(name))
    True
    """
    names = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    names = [name for name in names if CHECKSUMS not in name]  # also excludes its temporary files
    with concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
        digests = readers.map(lambda name: _digest(directory / name), names)
    files = dict(zip(names, digests, strict=True))
    write_atomically(directory / CHECKSUMS, json.dumps({"sha256": files}, indent=1) + "\n")


def verify(directory: pathlib.Path) -> bool:
    """Compares a checkpoint with its checksums; each process reads its share of the files.

    Returns:
        Whether the checkpoint has checksums. It has none if it was saved by an older version, or if the run was killed
        before they were written.

    Raises:
        DamagedCheckpoint: If a file is missing, changed or unreadable; the message names the file.
    """
    try:
        files = json.loads((directory / CHECKSUMS).read_bytes())["sha256"]
        expected = {str(name): str(digest) for name, digest in files.items()}
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DamagedCheckpoint(f"{CHECKSUMS} is damaged") from None
    if not expected:
        raise DamagedCheckpoint(f"{CHECKSUMS} is damaged")
    share = sorted(expected)[jax.process_index() :: num_processes()] if num_processes() > 1 else sorted(expected)
    with concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
        for damage in readers.map(lambda name: _damage(directory, name, expected[name]), share):
            if damage:
                raise DamagedCheckpoint(damage)
    return True


def _damage(directory: pathlib.Path, name: str, expected: str) -> str:
    """Returns why a file does not match its checksum; "" if it does."""
    try:
        return "" if _digest(directory / name) == expected else f"{name} has changed since it was saved"
    except OSError as error:
        return f"{name}: {error.strerror}"


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
