"""Files of a workdir that are copied to and from a bucket, and the checkpoints among them."""

import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from mass_jax.runtime.checksums import CHECKSUMS
from mass_jax.runtime.workdir import CONFIG_NAME, EPS_ROOT_NAME

_UNFINISHED = ".orbax-checkpoint-tmp"


class State(NamedTuple):
    """What tells whether a local file has changed: inode, size in bytes, and time of the last change in ns."""

    inode: int
    size: int
    changed: int


def state_of(path: pathlib.Path) -> State:
    """Returns the state of a local file."""
    status = path.stat()
    return State(status.st_ino, status.st_size, status.st_mtime_ns)


def is_copied(path: str) -> bool:
    """Returns whether a path relative to the workdir is copied: neither hidden nor unfinished, and inside the workdir.

    >>> [is_copied(path) for path in ("seed0/mass/metrics.jsonl", ".lock", "../x", "/x", "a/7.orbax-checkpoint-tmp/b")]
    [True, False, False, False, False]
    """
    parts = path.split("/")
    return not any(not part or part.startswith(".") or _UNFINISHED in part or "\\" in part for part in parts)


def checkpoint_of(path: str) -> str:
    """Returns the directory of the checkpoint to which a file belongs, or "".

    >>> checkpoint_of("seed0/mass/checkpoints/20/state/d/1")
    'seed0/mass/checkpoints/20'
    >>> checkpoint_of("seed0/mass/metrics.jsonl")
    ''
    """
    parts = path.split("/")
    for i in range(len(parts) - 2):
        if parts[i] == "checkpoints" and parts[i + 1].isascii() and parts[i + 1].isdigit():
            return "/".join(parts[: i + 2])
    return ""


def complete(paths: Iterable[str]) -> dict[str, list[str]]:
    """Returns the files of every complete checkpoint; the file of checksums, which is written last, comes last.

    >>> complete(["m/checkpoints/2/checksums.json", "m/checkpoints/2/state", "m/checkpoints/4/state", "config.json"])
    {'m/checkpoints/2': ['m/checkpoints/2/state', 'm/checkpoints/2/checksums.json']}
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        if checkpoint := checkpoint_of(path):
            found.setdefault(checkpoint, []).append(path)
    return {
        checkpoint: sorted(files, key=lambda path: (path == f"{checkpoint}/{CHECKSUMS}", path))
        for checkpoint, files in found.items()
        if f"{checkpoint}/{CHECKSUMS}" in files
    }


def order(path: str) -> int:
    """Returns when a file is uploaded, relative to checkpoints, which have order 2.

    Settings come first. Metrics come before the checkpoint whose steps they contain, and records of an evaluation after
    the checkpoint that was evaluated.

    >>> [order(path) for path in ("config.json", "seed0/mass/metrics.jsonl", "seed0/evaluation/base.jsonl")]
    [0, 1, 3]
    """
    if path in (CONFIG_NAME, EPS_ROOT_NAME):
        return 0
    return 3 if {"evaluation", "report"} & set(path.split("/")[:-1]) else 1


def scan(local: pathlib.Path) -> dict[str, State]:
    """Returns the state of every local file that is copied, by path relative to the workdir; links are not followed."""
    found = {}
    for directory, _, names in os.walk(local):
        for name in names:
            path = pathlib.Path(directory, name)
            relative = path.relative_to(local).as_posix()
            if is_copied(relative) and not path.is_symlink():
                try:
                    found[relative] = state_of(path)
                except FileNotFoundError:  # removed meanwhile
                    continue
    return dict(sorted(found.items()))
