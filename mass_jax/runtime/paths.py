"""The user's cache directory, and checks for paths under which orbax cannot save checkpoints or read them back."""

import os
import pathlib

from mass_jax.errors import UserError

# Orbax finds the files of each process by an unescaped glob pattern, in which `*?[` are special. It also normalizes
# backslashes and parses ":/" as the scheme of a URL.
_SAVING = ("[", "*", "?")
_ALWAYS = ("\\", ":/")


def user_cache() -> pathlib.Path:
    """Returns the directory of this package in the user's cache directory.

    Raises:
        RuntimeError: If the user has no home directory.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = pathlib.Path(given) if os.path.isabs(given) else pathlib.Path.home() / ".cache"
    return base / "mass_jax"


def check_checkpoint_path(directory: str | pathlib.Path, *, saving: bool = True) -> None:
    """Checks that checkpoints under a directory can be written and read back; accesses no files.

    For a refused directory, a symbolic link with an ordinary name works.

    Args:
        directory: absolute path, or path relative to the working directory.
        saving: whether checkpoints will be saved; some paths can be read from but not saved to.

    Raises:
        UserError: If orbax cannot handle the path; the message names the offending part.

    >>> check_checkpoint_path("runs/tiny")
    >>> check_checkpoint_path("runs/lr=[0.1]")
    Traceback (most recent call last):
    ...
    mass_jax.errors.UserError: runs/lr=[0.1]: checkpoints under a path with '[' cannot be read back; use another path
    """
    path = f"{pathlib.Path(directory).absolute()}/"  # orbax appends further parts
    for part in (*(_SAVING if saving else ()), *_ALWAYS):
        if part in path:
            raise UserError(
                f"{directory}: checkpoints under a path with {part!r} cannot be read back; use another path"
            )
    try:
        path.encode()
        os.fsencode(path).decode()
    except UnicodeError:
        raise UserError(
            f"{os.fsencode(path)!r}: checkpoints need a path in UTF-8; use another path, or set PYTHONUTF8=1"
        ) from None
