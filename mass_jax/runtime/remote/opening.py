"""Opens a workdir that is a local directory or a URL of a bucket."""

import contextlib
import hashlib
import json
import pathlib
import time
import uuid
from collections.abc import Iterator

from absl import logging

from mass_jax.errors import UserError
from mass_jax.runtime.distributed import agreed_maximum, gather_rows, is_first, num_processes
from mass_jax.runtime.lock import lock_workdir
from mass_jax.runtime.paths import check_checkpoint_path, user_cache
from mass_jax.runtime.remote import contents
from mass_jax.runtime.remote.download import check_origin, download
from mass_jax.runtime.remote.lease import Lease
from mass_jax.runtime.remote.store import Store, check_url, is_url
from mass_jax.runtime.remote.upload import Background, Uploader
from mass_jax.runtime.signals import Stop
from mass_jax.runtime.workdir import CONFIG_NAME, EPS_ROOT_NAME, workdir_path, write_atomically

MARKER = ".remote.json"
_BOOT = pathlib.Path("/proc/sys/kernel/random/boot_id")


@contextlib.contextmanager
def open_workdir(given: str, local: str | None = None, stop: Stop | None = None) -> Iterator[pathlib.Path]:
    """Opens a workdir for a run. All processes must call this.

    A local directory is returned unchanged. For a URL, a local directory is locked and filled with the files in the
    bucket. What the run writes there is uploaded in the background and at the end, by process 0, and a lease in the
    bucket keeps other runs out. If the last run that wrote to the bucket used the same local directory, whose files are
    at least as new, they are kept.

    Args:
        given: value of --workdir: a path, or gs://BUCKET/PATH or s3://BUCKET/PATH.
        local: value of --local_workdir, for a URL; None is `default_local(given)`. Several processes need one
            directory, because orbax writes and reads a checkpoint in one directory of all processes.
        stop: if given, its polls raise a `UserError` once the lease is lost or uploads have failed for ten minutes.

    Yields:
        The local directory.

    Raises:
        UserError: If the values are invalid, another run uses the workdir, the bucket cannot be read or written, or the
            processes do not share the local directory.

    >>> with open_workdir("runs/tiny") as workdir:
    ...     workdir.name
    'tiny'
    """
    if not is_url(given):
        refuse_local(given, local)
        yield workdir_path(given)
        return
    url = check_url(given)
    path = local_path(url, local)
    with contextlib.ExitStack() as held:
        held.enter_context(lock_workdir(path, stop, "local_workdir"))
        failure = ""
        if is_first():
            try:
                held.enter_context(_mirrored(Store(url), path, stop))
            except UserError as error:
                failure = str(error)
            except OSError as error:
                failure = f"--local_workdir={path} cannot be written ({error.strerror or error}); choose another"
        if agreed_maximum(bool(failure)):
            raise UserError(failure or f"process 0 cannot use --workdir={url}; see its error")
        _check_shared(path)
        yield path


@contextlib.contextmanager
def read_workdir(given: str, local: str | None = None, flag: str = "workdir") -> Iterator[pathlib.Path]:
    """Opens a workdir that is only read.

    A local directory is returned unchanged. The files of a URL are downloaded into a directory of their own, which is
    locked until the end, since the next download may remove files from it. Nothing is written to the bucket, and a run
    may write to it meanwhile. The directory `report` is neither downloaded nor removed: the one of the copy was made
    from the records there.

    Args:
        given: value of the flag: a path, or a URL.
        local: value of --local_workdir, for a URL; None is `default_local(given)` with the suffix "-copy".
        flag: name of the flag, for messages; the one of `local` has the prefix "local_".

    Yields:
        The local directory.

    Raises:
        UserError: If the URL has no run or cannot be read, or if the local directory is in use, has other files or is
            that of a run.

    >>> with read_workdir("runs/tiny") as workdir:
    ...     workdir.name
    'tiny'
    """
    if not is_url(given):
        refuse_local(given, local, flag)
        yield workdir_path(given)
        return
    url, of_local = check_url(given, flag), f"local_{flag}"
    path = local_path(url, local, "-copy", of_local)
    store = Store(url)
    with lock_workdir(path, flag=of_local):
        if _check_own(path, url, of_local).get("token"):
            raise UserError(
                f"--{of_local}={path} is the directory of a run, whose files may be newer than those of {url}; give "
                f"another directory, or leave the flag out"
            )
        if not check_origin(store, flag):
            raise UserError(f"--{flag}={url} holds no run; check the URL")
        _mark(path, url, "")
        download(store, path, omit=("report",))
        yield path


def peek_workdir(given: str) -> tuple[bytes | None, bool]:
    """Reads the settings of a workdir in a bucket, without its other files.

    Args:
        given: value of --workdir: a URL.

    Returns:
        The contents of config.json, None for a new workdir; and whether it holds results.

    Raises:
        UserError: If the URL has other files than those of a run, or cannot be read.
    """
    store = Store(check_url(given))
    if not check_origin(store):
        return None, False
    results = any(not name.startswith(".") and name not in (CONFIG_NAME, EPS_ROOT_NAME) for name in store.top())
    try:
        return store.read(CONFIG_NAME), results
    except FileNotFoundError:
        return None, results


def default_local(url: str) -> pathlib.Path:
    """Returns the local directory of a URL: WORKDIRS/HASH/NAME in the user's cache directory.

    >>> default_local("gs://bucket/runs/tiny").parts[-3:]
    ('workdirs', '9c1944acc038', 'tiny')
    """
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return user_cache() / "workdirs" / digest / url.rpartition("/")[2]


def local_path(url: str, local: str | None, suffix: str = "", flag: str = "local_workdir") -> pathlib.Path:
    """Returns the local directory of a URL, after the checks of `workdir_path`; accesses no files."""
    if local is not None and is_url(local):
        raise UserError(f"--{flag}={local.partition('?')[0]} is a URL; give a directory of this machine")
    chosen = default_local(url) if local is None else pathlib.Path(local)
    path = chosen.with_name(chosen.name + suffix) if local is None else chosen
    check_checkpoint_path(path)
    return path.absolute()


def refuse_local(given: str, local: str | None, flag: str = "workdir") -> None:
    """Raises a UserError if a local copy is named for a workdir that is not a URL."""
    if local is not None:
        raise UserError(f"--local_{flag}={local} needs a URL as --{flag}, which {given} is not; omit it")


@contextlib.contextmanager
def _mirrored(store: Store, path: pathlib.Path, stop: Stop | None) -> Iterator[None]:
    """Holds the lease, fills the local directory, and uploads its changes until the end."""
    before = _check_own(path, store.url)
    check_origin(store)
    token = _token(before) or uuid.uuid4().hex
    lease = Lease(store, token)
    ours = lease.resumes
    release = True
    try:
        if ours:
            logging.info("%s has the newest files of %s", path, store.url)
        else:
            _mark(path, store.url, "")  # until the download is complete
            download(store, path)
            _mark(path, store.url, token)
        sent = {} if ours else contents.scan(path)
        with contextlib.ExitStack() as held:
            uploading = Background(Uploader(store, path, lease, sent))
            if stop is not None:
                held.enter_context(stop.watch(lambda: lease.loss() or uploading.failure()))
            held.enter_context(uploading)
            yield
        logging.info("the files of this run are in %s", store.url)
    except BaseException as error:
        release = isinstance(error, Exception)
        raise
    finally:
        lease.end(release)


def _check_own(path: pathlib.Path, url: str, flag: str = "local_workdir") -> dict[str, str]:
    """Returns the marker of a local directory, or {} for a new one.

    Raises:
        UserError: If the directory contains other files, which a download would remove.
    """
    try:
        found = json.loads((path / MARKER).read_text(encoding="utf-8"))
        if found["url"] == url:
            return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        found = None
    names = [child.name for child in path.iterdir() if not child.name.startswith(".")] if path.exists() else []
    if names or found:
        raise UserError(f"--{flag}={path} holds other files than those of {url}; give another directory")
    return {}


def _mark(path: pathlib.Path, url: str, token: str) -> None:
    """Records that a local directory belongs to a URL; with a token, also that its download is complete."""
    write_atomically(path / MARKER, json.dumps({"url": url, "token": token, "boot": _boot()}) + "\n")


def _token(marker: dict[str, str]) -> str:
    """Returns the token of a complete directory, or "": after a crash of the machine, files may be incomplete."""
    return str(marker.get("token", "")) if marker.get("boot") == _boot() else ""


def _boot() -> str:
    """Returns an identifier of this start of the machine; "" where there is none."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _check_shared(path: pathlib.Path, patience: float = 30.0) -> None:
    """Checks that all processes see one local directory.

    Raises:
        UserError: If they do not.
    """
    if num_processes() == 1:
        return
    import jax

    expected = gather_rows({jax.process_index(): _seen(path)})[0]
    deadline = time.monotonic() + patience
    while _seen(path) != expected and time.monotonic() < deadline:  # network file systems may be slow
        time.sleep(0.5)
    if agreed_maximum(_seen(path) != expected):
        raise UserError(
            f"--local_workdir={path} is not one directory for all processes, which checkpoints need; give one on a "
            f"disk that their hosts share"
        )


def _seen(path: pathlib.Path) -> str:
    try:
        return (path / MARKER).read_text(encoding="utf-8")
    except OSError:
        return ""
