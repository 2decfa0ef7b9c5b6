"""Uploads the files of a local workdir to a bucket, in an order that leaves the copy resumable at any time."""

import concurrent.futures
import pathlib
import threading
import time
from collections.abc import Sequence
from typing import Self

from absl import logging

from mass_jax.runtime.checksums import CHECKSUMS
from mass_jax.runtime.remote import contents
from mass_jax.runtime.remote.lease import Lease, LeaseLost
from mass_jax.runtime.remote.store import Store, StoreError

INTERVAL_SECONDS = 10.0  # between passes
MOST_SECONDS = 120.0  # between passes after failures
GIVE_UP_SECONDS = 600.0  # of failures, after which the run stops
_WORKERS = 4


class Uploader:
    """Copies what has changed in a local directory to a bucket, pass by pass.

    A local workdir can be resumed after a kill at any time, because files are replaced atomically or appended to. A
    pass keeps this property in the bucket: it lists the checkpoints first and the other files afterwards, then uploads
    settings, metrics and other files, then the listed checkpoints, each with its checksums last, then records and
    reports that are not newer than the list of checkpoints. Checkpoints that the run has deleted are deleted from the
    bucket once a newer one is complete there; nothing else is deleted.

    Args:
        store: the workdir in the bucket.
        local: the local directory.
        lease: lease of the workdir, checked before every upload.
        sent: states of the local files that the bucket has.
    """

    def __init__(self, store: Store, local: pathlib.Path, lease: Lease, sent: dict[str, contents.State] | None = None):
        self._store, self._local, self._lease = store, local, lease
        self._sent = dict(sent or {})

    def sync(self) -> None:
        """Uploads what has changed.

        Raises:
            StoreError: If the bucket cannot be written.
            LeaseLost: If another run has taken over the workdir.
        """
        self._lease.check()
        found = contents.scan(self._local)
        # One scan may see metrics before their last step, and then the checkpoint of that step.
        for path in self._changed(contents.scan(self._local)):
            if contents.order(path) < 2:
                self._send(path)
        newest: dict[str, int] = {}
        for checkpoint, files in contents.complete(found).items():
            if self._sent.get(files[-1]) != found[files[-1]] and self._send_checkpoint(checkpoint, files, found):
                directory, _, step = checkpoint.rpartition("/")
                newest[directory] = max(int(step), newest.get(directory, 0))
        for directory, number in newest.items():
            self._prune(directory, number)
        for path in self._changed(found):
            if contents.order(path) > 2:
                self._send(path, found[path])

    def _changed(self, found: dict[str, contents.State]) -> list[str]:
        """Returns the files outside of checkpoints that the bucket does not have, in the order of their upload."""
        changed = [path for path in found if not contents.checkpoint_of(path) and self._sent.get(path) != found[path]]
        return sorted(changed, key=contents.order)

    def _send(self, path: str, listed: contents.State | None = None) -> None:
        """Uploads a file; does nothing if it was removed, or differs from `listed`: the next pass uploads it then."""
        self._lease.check()
        source = self._local / path
        try:
            before = contents.state_of(source)
            if listed not in (None, before):
                return
            data = source.read_bytes()
        except FileNotFoundError:
            return
        self._store.write(path, data)
        self._sent[path] = before

    def _send_checkpoint(self, checkpoint: str, files: Sequence[str], found: dict[str, contents.State]) -> bool:
        """Uploads a checkpoint; returns False if the run deletes it meanwhile."""
        *parts, checksums = files
        try:
            summed = (self._local / checksums).read_bytes()
            if not self._has(checkpoint, files, summed):
                self._store.delete([checksums])  # of another attempt at this step
                with concurrent.futures.ThreadPoolExecutor(_WORKERS) as workers:
                    for _ in workers.map(self._send_part, parts):
                        pass
                self._store.delete(path for path in self._store.sizes(checkpoint) if path not in parts)
                self._lease.check()
                self._store.write(checksums, summed)
                logging.info("uploaded %s/%s", self._store.url, checkpoint)
        except FileNotFoundError:
            if (self._local / checksums).exists():
                raise
            return False
        self._sent |= {path: found[path] for path in files}
        return True

    def _send_part(self, path: str) -> None:
        self._lease.check()
        source = self._local / path
        try:
            self._store.upload(path, source)
        except StoreError:
            if source.exists():
                raise
            raise FileNotFoundError(source) from None

    def _has(self, checkpoint: str, files: Sequence[str], summed: bytes) -> bool:
        """Returns whether the bucket has the same checkpoint, from before this process started."""
        if self._store.sizes(checkpoint).keys() != set(files):
            return False
        try:
            return self._store.read(f"{checkpoint}/{CHECKSUMS}") == summed
        except FileNotFoundError:
            return False

    def _prune(self, directory: str, newest: int) -> None:
        """Deletes checkpoints from the bucket that are older than the newest one and no longer exist locally."""
        gone: dict[str, list[str]] = {}
        for path in self._store.sizes(directory):
            older = contents.checkpoint_of(path)
            if older and int(older.rpartition("/")[2]) < newest and not (self._local / older).exists():
                gone.setdefault(older, []).append(path)
        for older, files in gone.items():
            self._lease.check()
            self._store.delete(sorted(files, key=lambda path: path != f"{older}/{CHECKSUMS}"))  # checksums first
            self._sent = {path: state for path, state in self._sent.items() if path not in files}


class Background:
    """Context manager that runs the passes of an uploader in a thread, and a last one at the end.

    A failed pass is repeated, at growing intervals. The last pass is omitted after a KeyboardInterrupt, or if the lease
    was lost.

    Args:
        uploader: the uploader.
    """

    def __init__(self, uploader: Uploader):
        self._uploader = uploader
        self._ended = threading.Event()
        self._failed_since, self._failure = 0.0, ""
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        if kind is not None and not issubclass(kind, Exception):
            return  # the user wants to stop at once; the thread ends with the process
        self._thread.join()
        try:
            self._uploader.sync()
        except (StoreError, LeaseLost) as error:
            if kind is None:
                raise
            logging.error("the last upload failed: %s", error)

    def failure(self) -> str:
        """Returns why the run must stop, or "": uploads have failed for `GIVE_UP_SECONDS`."""
        return self._failure

    def _run(self) -> None:
        wait = INTERVAL_SECONDS
        while not self._ended.wait(wait):
            began = time.monotonic()
            try:
                self._uploader.sync()
                self._failed_since, wait = 0.0, max(INTERVAL_SECONDS, 5 * (time.monotonic() - began))
            except LeaseLost:
                return
            except Exception as error:
                self._failed_since = self._failed_since or began
                if time.monotonic() - self._failed_since > GIVE_UP_SECONDS:
                    self._failure = str(error)
                    return
                wait = min(2 * wait, MOST_SECONDS)
                logging.warning("an upload failed and is repeated in %.0f s: %s", wait, error)
