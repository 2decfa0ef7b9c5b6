"""Objects under a URL of a bucket, read and written through fsspec."""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from mass_jax import lazy
from mass_jax.errors import UserError, first_line

# Package of each scheme; memory:// is fsspec's own and lives in one process, for tests.
PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "memory": "fsspec"}
_SPECIAL = "\\*?[]#%"


# Extra of each scheme that is a store of its own.
EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3"}


class StoreError(UserError):
    """Raised if a bucket cannot be read or written; the message names the URL, the reason and the fix."""


def is_url(given: str) -> bool:
    """Returns whether a value of `--workdir` is a URL instead of a local path.

    >>> is_url("gs://bucket/run"), is_url("runs/tiny")
    (True, False)
    """
    return "://" in given


def check_url(given: str, flag: str = "workdir", here: bool = True) -> str:
    """Checks a URL without accessing the network.

    Args:
        given: value of the flag.
        flag: name of the flag, for messages.
        here: whether this process will access the URL, so that the package of the scheme must be installed.

    Returns:
        The URL without a slash at the end.

    Raises:
        UserError: If the scheme is not supported, or the URL has no path in the bucket or contains special characters.
        mass_jax.lazy.MissingExtraError: If the package of the scheme is not installed.

    >>> check_url("memory://bucket/run/")
    'memory://bucket/run'
    """
    scheme, _, rest = given.partition("://")
    shown = f"--{flag}={given.partition('?')[0]}"  # a query string may grant access
    if "@" in rest:  # not shown: it may be a password
        raise UserError(f"--{flag}: the URL contains '@'; give {scheme}://BUCKET/PATH, without credentials")
    if scheme not in PACKAGES:
        raise UserError(f"{shown}: {scheme}:// is not supported; give a directory, gs://... or s3://...")
    bucket, *parts = rest.rstrip("/").split("/")
    if not bucket or not parts:
        raise UserError(f"{shown} names no path in a bucket; give {scheme}://BUCKET/PATH")
    if {"", ".", ".."} & set(parts) or any(character in rest for character in _SPECIAL) or not rest.isprintable():
        raise UserError(f"{shown}: use a path without empty parts, '..' and any of {_SPECIAL}")
    if scheme == "memory" and not here:
        raise UserError(f"{shown} is in the memory of one process; give gs://... or s3://...")
    if here:
        lazy.require(f"--{flag}={scheme}://", PACKAGES[scheme])
    return f"{scheme}://{'/'.join([bucket, *parts])}"


class Store:
    """Objects under a URL, by their path relative to it.

    Args:
        url: URL from `check_url`. Credentials come from the environment, as for all programs that use gcsfs or s3fs.

    Attributes:
        url: the URL.
    """

    def __init__(self, url: str):
        import fsspec  # not needed for local directories

        self.url = url
        scheme = url.partition("://")[0]
        self._fs: Any = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=scheme != "memory")
        self._root = str(self._fs._strip_protocol(url))

    def sizes(self, under: str = "") -> dict[str, int]:
        """Returns the sizes of all objects below a directory, by path relative to the URL, in order of their paths."""
        with self._named("read"):
            try:
                found = self._fs.find(self._path(under), detail=True)
            except FileNotFoundError:
                return {}
        files = {name: info for name, info in found.items() if info["type"] == "file" and not name.endswith("/")}
        return {self._relative(name): int(info["size"] or 0) for name, info in sorted(files.items())}

    def top(self) -> list[str]:
        """Returns the names of the objects and directories directly under the URL."""
        with self._named("read"):
            try:
                return sorted(self._relative(name) for name in self._fs.ls(self._root, detail=False))
            except FileNotFoundError:
                return []

    def read(self, path: str) -> bytes:
        """Returns the contents of an object.

        Raises:
            FileNotFoundError: If it does not exist.
        """
        with self._named("read"):
            return bytes(self._fs.cat_file(self._path(path)))

    def write(self, path: str, data: bytes) -> None:
        """Replaces an object; readers see either the old contents or the new."""
        with self._named("write"):
            self._fs.pipe_file(self._path(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Writes an object only if it does not exist, by a conditional request; returns whether it was written."""
        with self._named("write"):
            try:
                self._fs.pipe_file(self._path(path), data, mode="create")
            except FileExistsError:
                return False
        return True

    def upload(self, path: str, source: pathlib.Path) -> None:
        """Replaces an object by the contents of a file that does not change meanwhile."""
        with self._named("write"):
            self._fs.put_file(str(source), self._path(path))

    def download(self, path: str, target: pathlib.Path) -> None:
        """Writes the contents of an object to a file, whose directory is created.

        Raises:
            FileNotFoundError: If the object does not exist.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._named("read"):
            self._fs.get_file(self._path(path), str(target))

    def delete(self, paths: Iterable[str]) -> None:
        """Deletes objects; those that do not exist are ignored."""
        for path in paths:
            with self._named("write"), contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(path))

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _relative(self, name: str) -> str:
        return name.removeprefix(self._root).strip("/")

    @contextlib.contextmanager
    def _named(self, action: str) -> Iterator[None]:
        """Turns the errors of the libraries, which have no common type, into a `StoreError`."""
        try:
            yield
        except FileNotFoundError as error:
            if action == "read":
                raise
            raise StoreError(f"{self.url} cannot be written ({_reason(error)}); does the bucket exist?") from error
        except Exception as error:
            fix = _LOGIN[self.url.partition("://")[0]]
            fix = fix if _is_refusal(error) else f"check the network, or {fix}"
            raise StoreError(f"{self.url} cannot be {_PAST[action]} ({_reason(error)}); {fix}") from error


_PAST = {"read": "read", "write": "written"}
_GOOGLE = "give this account access to the bucket (gcloud auth application-default login)"
_LOGIN = {"gs": _GOOGLE, "gcs": _GOOGLE, "s3": "give this account access to the bucket (aws configure)", "memory": ""}


def _is_refusal(error: BaseException) -> bool:
    """Returns whether an error means missing or insufficient credentials."""
    text = f"{type(error).__name__} {error}"
    forbidden = isinstance(error, OSError) and str(error).startswith("Forbidden")  # gcsfs, for status 403
    return isinstance(error, PermissionError) or forbidden or "redential" in text


def _reason(error: BaseException) -> str:
    """Returns the start of an error's message, without query strings."""
    words = [word.partition("?")[0] + "?" * ("?" in word) for word in first_line(error).split()]
    return " ".join(words)[:200]  # query strings of requests may grant access
