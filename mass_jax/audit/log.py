"""The event log: appended under a lock, flushed to disk before `append` returns, repaired after a crash.

Three files: LOG holds the chain; LOG.head records its verified end, so that a lost tail is detected; LOG.torn keeps
incomplete last lines. Several processes may write: a lock on LOG serializes them, and each verifies what the others
wrote before it appends.
"""

import contextlib
import fcntl
import os
import pathlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from mass_jax.audit.chain import Broken, Head, seal, sha256, walk
from mass_jax.errors import UserError
from mass_jax.runtime import jsonl

Record = dict[str, Any]


class Checked(NamedTuple):
    """Result of `verify`.

    Attributes:
        head: end of the chain.
        notes: remarks that are not faults.
    """

    head: Head
    notes: list[str]


class EventLog(contextlib.AbstractContextManager):
    """An append-only, hash-chained JSONL file, open for writing.

    Args:
        path: the log; created if missing, with its directory, readable by its owner only.
        on_record: called with every record in order, including those of other processes.

    Raises:
        Broken: verification failed or the tail is lost; nothing is written to such a log.
        UserError: the file cannot be opened.
    """

    def __init__(self, path: pathlib.Path, on_record: Callable[[Record], None] = lambda _: None):
        self.path, self._on_record, self.head = path, on_record, Head()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)
        except OSError as error:
            raise UserError(f"--log={path} cannot be written ({error.strerror}); choose another") from None
        weakref.finalize(self, self._file.close)  # closes a log that is dropped without `close`
        try:
            with self._locked():
                self._follow(_read_head(path, self._size() == 0))
                _write_head(path, self.head)
        except BaseException:
            self._file.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, *records: Mapping[str, Any]) -> list[Record]:
        """Appends records durably; see `transact`."""
        return self.transact(lambda: records)

    def transact(self, make: Callable[[], Sequence[Mapping[str, Any]]]) -> list[Record]:
        """Appends the records that `make` returns.

        Args:
            make: called under the lock, after `on_record` has seen the records of other processes.

        Returns:
            The sealed records, once they are on disk.

        Raises:
            Broken: the log was changed other than by appending.
            OSError: writing failed; the log is unchanged.
        """
        with self._locked():
            self._follow(self.head)
            return self._add(make())

    def _add(self, records: Sequence[Mapping[str, Any]]) -> list[Record]:
        head, sealed, lines = self.head, [], []
        for record in records:
            done, line, head = seal(record, head)
            sealed.append(done)
            lines.append(line)
        if lines:
            self._write(b"".join(lines))
            self.head = head
            _write_head(self.path, head)
        for done in sealed:
            self._on_record(done)
        return sealed

    def _write(self, data: bytes) -> None:
        """Writes all of `data` to disk, or restores the file."""
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), self.head.size)
            raise

    def _follow(self, known: Head) -> None:
        """Verifies the file to its end and moves an incomplete last line aside; requires the lock."""
        if not self.path.exists() or not os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
            raise Broken(f"{self.path} was removed or replaced while in use")
        torn = b""
        with open(os.dup(self._file.fileno()), "rb") as reader:
            reader.seek(self.head.size)
            for found, head in _checked(reader, self.head, known, self.path):
                if isinstance(found, bytes):
                    torn = found
                else:
                    self.head = head
                    self._on_record(found)
        if torn:
            self._move_aside(torn)

    def _move_aside(self, torn: bytes) -> None:
        """Moves an incomplete line to LOG.torn and records the repair."""
        aside = os.open(_beside(self.path, "torn"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(aside, "ab") as file:
            file.write(torn + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.ftruncate(self._file.fileno(), self.head.size)
        self._add([{"kind": "repair", "bytes": len(torn), "sha256": sha256(torn)}])

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def records(path: pathlib.Path, notes: list[str] | None = None) -> Iterator[tuple[Record, Head]]:
    """Yields the verified records of a log, each with the head after it; takes no lock and changes nothing.

    Args:
        path: the log.
        notes: receives remarks that are not faults.

    Raises:
        Broken: on reaching an edited, removed or moved record, or a lost tail.
        UserError: the log cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(
            f"--log={path} cannot be read ({error.strerror}); give the file that a solve run wrote"
        ) from None
    with file:
        # Read the head first: records appended meanwhile are then beyond it, not missing.
        known, head = _read_head(path, os.fstat(file.fileno()).st_size == 0), Head()
        for found, after in _checked(file, Head(), known, path):
            head = after
            if not isinstance(found, bytes):
                yield found, head
            elif notes is not None:
                notes.append(
                    f"{len(found)} bytes of an unfinished line at the end, left by a crash; the next run repairs it"
                )
        if notes is not None and head.number > known.number:
            notes.append(
                f"the head file is {head.number - known.number} records behind, after a crash; the next run repairs it"
            )


def verify(path: pathlib.Path, expect: tuple[int, str] | None = None) -> Checked:
    """Verifies a log from its start, with one line in memory at a time.

    Args:
        path: the log.
        expect: number and hash of a record, noted earlier.

    Raises:
        Broken: see `records`; or the expected record differs or is missing.
        UserError: the log cannot be read.
    """
    notes: list[str] = []
    head = Head()
    for _, head in records(path, notes):
        if expect is not None and head.number == expect[0] and head.hash != expect[1]:
            raise Broken(
                f"record {head.number} has hash {head.hash}, not the expected {expect[1]}: the chain was recomputed"
            )
    if expect is not None and head.number < expect[0]:
        raise Broken(f"{path} ends at record {head.number}, before the expected record {expect[0]}: its tail is lost")
    return Checked(head, notes)


def _checked(file: BinaryIO, head: Head, known: Head, path: pathlib.Path) -> Iterator[tuple[Record | bytes, Head]]:
    """Runs `walk` and checks that the chain contains the known head."""
    for found, after in walk(file, head):
        head = after
        if not isinstance(found, bytes) and head.number == known.number and head != known:
            raise Broken(f"record {head.number} of {path} differs from the one in {_beside(path, 'head')}")
        if not (isinstance(found, bytes) and head.number < known.number):
            yield found, head
    if head.number < known.number:
        raise Broken(f"{path} ends at record {head.number} of {known.number}: its tail is lost")


def _beside(path: pathlib.Path, suffix: str) -> pathlib.Path:
    return path.with_name(f"{path.name}.{suffix}")


def _read_head(path: pathlib.Path, empty: bool) -> Head:
    """Reads the head file; it is written before the first record, so only an empty log may lack it."""
    head_path = _beside(path, "head")
    try:
        written = jsonl.loads(head_path.read_bytes())
        return Head(int(written["number"]), int(written["size"]), str(written["hash"]))
    except FileNotFoundError:
        if empty:
            return Head()
        raise Broken(f"{head_path} is missing, but the log is not empty: it was removed") from None
    except OSError as error:
        raise UserError(f"{head_path} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, OverflowError):
        raise Broken(f"{head_path} is damaged") from None


def _write_head(path: pathlib.Path, head: Head) -> None:
    """Replaces the head file atomically and durably."""
    head_path = _beside(path, "head")
    temporary = _beside(path, "head.new")  # one fixed name: the lock excludes other writers
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(jsonl.dumps(head._asdict()))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(head_path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
