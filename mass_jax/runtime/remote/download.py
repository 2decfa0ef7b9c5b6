"""Downloads a workdir from a bucket into a local directory."""

import concurrent.futures
import contextlib
import pathlib
import shutil
import time
from collections.abc import Collection, Sequence

from absl import logging

from mass_jax.errors import UserError
from mass_jax.runtime.checksums import CHECKSUMS
from mass_jax.runtime.remote import contents
from mass_jax.runtime.remote.store import Store
from mass_jax.runtime.workdir import CONFIG_NAME

_PART = ".part"
_WORKERS = 8


def check_origin(store: Store, flag: str = "workdir") -> bool:
    """Checks that a URL is empty or a workdir, before anything is downloaded.

    Args:
        store: objects under the URL.
        flag: name of the flag that gives the URL, for messages.

    Returns:
        Whether there is a workdir.

    Raises:
        UserError: If there are other files.
    """
    top = store.top()
    if CONFIG_NAME in top or any(name.startswith(".lease-") for name in top):
        return True
    if visible := [name for name in top if not name.startswith(".")]:
        raise UserError(
            f"--{flag}={store.url} holds {visible[0]!r} but no {CONFIG_NAME}, so it is not a workdir; choose another"
        )
    return False


def download(store: Store, local: pathlib.Path, omit: Collection[str] = ()) -> None:
    """Makes a local directory equal to a workdir in a bucket, except for hidden files and `omit`.

    Local files that are not in the bucket are removed. A checkpoint appears locally when all of its files have arrived;
    one without checksums, whose upload was interrupted, is omitted. A checkpoint that exists locally with the same
    checksums is kept.

    Args:
        store: the workdir.
        local: directory that belongs to this workdir.
        omit: names directly under the workdir that are neither downloaded nor removed.

    Raises:
        StoreError: If the bucket cannot be read.
    """
    began, listed = time.monotonic(), store.sizes()
    remote = {
        path: size for path, size in listed.items() if contents.is_copied(path) and path.partition("/")[0] not in omit
    }
    checkpoints = contents.complete(remote)
    unfinished = {contents.checkpoint_of(path) for path in remote} - checkpoints.keys() - {""}
    for checkpoint in sorted(unfinished):
        logging.warning("%s/%s has no %s: its upload was interrupted; it is not used", store.url, checkpoint, CHECKSUMS)
    loose = [path for path in remote if not contents.checkpoint_of(path)]
    kept = {name for name, files in checkpoints.items() if _is_same(store, local, name, files, remote)}
    wanted = {*loose, *(path for name in kept for path in checkpoints[name])}
    for path in contents.scan(local):
        if path not in wanted and path.partition("/")[0] not in omit:
            (local / path).unlink(missing_ok=True)
    _remove_empty(local)
    with concurrent.futures.ThreadPoolExecutor(_WORKERS) as workers:
        for name, files in checkpoints.items():
            if name not in kept:
                _fetch_checkpoint(store, local, name, files, workers)
        for _ in workers.map(lambda path: _fetch(store, local, path), loose):
            pass
    size = sum(size for path, size in remote.items() if contents.checkpoint_of(path) not in {*kept, *unfinished})
    seconds = time.monotonic() - began
    logging.info("downloaded %.3g MB from %s to %s in %.1f s", size / 1e6, store.url, local, seconds)


def _is_same(store: Store, local: pathlib.Path, checkpoint: str, files: Sequence[str], sizes: dict[str, int]) -> bool:
    """Returns whether a checkpoint exists locally with the same files, sizes and checksums."""
    with contextlib.suppress(OSError):
        here = {path.relative_to(local).as_posix(): path for path in (local / checkpoint).rglob("*") if path.is_file()}
        if here.keys() == set(files) and all(here[path].stat().st_size == sizes[path] for path in files):
            return here[files[-1]].read_bytes() == store.read(files[-1])
    return False


def _fetch_checkpoint(
    store: Store,
    local: pathlib.Path,
    checkpoint: str,
    files: Sequence[str],
    workers: concurrent.futures.Executor,
) -> None:
    """Downloads a checkpoint under a hidden name and renames it; ignores one that is deleted meanwhile."""
    target = local / checkpoint
    part = target.with_name(f".{target.name}{_PART}")
    for directory in (part, target):
        shutil.rmtree(directory, ignore_errors=True)
    try:
        for _ in workers.map(lambda path: store.download(path, part / path.removeprefix(f"{checkpoint}/")), files):
            pass
    except FileNotFoundError:
        shutil.rmtree(part, ignore_errors=True)
        logging.warning("%s/%s was deleted during the download; it is not used", store.url, checkpoint)
        return
    part.rename(target)


def _fetch(store: Store, local: pathlib.Path, path: str) -> None:
    """Downloads a file and replaces the local one; ignores one that is deleted meanwhile."""
    target = local / path
    part = target.with_name(f".{target.name}{_PART}")
    with contextlib.suppress(FileNotFoundError):
        store.download(path, part)
        part.replace(target)


def _remove_empty(local: pathlib.Path) -> None:
    """Removes directories without files; the local directory itself stays."""
    for directory in sorted((path for path in local.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # those with content stay
            directory.rmdir()
