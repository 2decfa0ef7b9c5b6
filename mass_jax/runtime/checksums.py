"""Checksums of the files of a checkpoint, so that bits that changed on a disk are noticed before they are used."""

import concurrent.futures
import hashlib
import json
import pathlib

import jax

from mass_jax.runtime.distributed import num_processes
from mass_jax.runtime.workdir import write_atomically

CHECKSUMS = "checksums.json"
_READERS = 4  # hashing releases Python's lock


class Damaged(Exception):
    """A checkpoint whose files are not those that were saved."""


def write_checksums(directory: pathlib.Path) -> None:
    """Records the SHA-256 of every file of a complete checkpoint, in a file beside them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     _ = (pathlib.Path(name) / "array").write_bytes(b"abc")
    ...     write_checksums(pathlib.Path(name))
    ...     verify(pathlib.Path(name))
    True
    """
    names = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    names = [name for name in names if CHECKSUMS not in name]  # nor a temporary one
    with concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
        digests = readers.map(lambda name: _digest(directory / name), names)
    files = dict(zip(names, digests, strict=True))
    write_atomically(directory / CHECKSUMS, json.dumps({"sha256": files}, indent=1) + "\n")


def verify(directory: pathlib.Path) -> bool:
    """Compares a checkpoint with its checksums. Of several processes each reads its share of the files.

    Returns:
        False for a checkpoint without checksums, which an earlier version saved or a kill left so.

    Raises:
        Damaged: a file is missing, changed or unreadable; names it.
    """
    try:
        files = json.loads((directory / CHECKSUMS).read_bytes())["sha256"]
        expected = {str(name): str(digest) for name, digest in files.items()}
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Damaged(f"{CHECKSUMS} is damaged") from None
    if not expected:
        raise Damaged(f"{CHECKSUMS} is damaged")
    share = sorted(expected)[jax.process_index() :: num_processes()] if num_processes() > 1 else sorted(expected)
    with concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
        for damage in readers.map(lambda name: _damage(directory, name, expected[name]), share):
            if damage:
                raise Damaged(damage)
    return True


def _damage(directory: pathlib.Path, name: str, expected: str) -> str:
    """What is wrong with a file; "" if nothing is."""
    try:
        return "" if _digest(directory / name) == expected else f"{name} has changed since it was saved"
    except OSError as error:
        return f"{name}: {error.strerror}"


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
