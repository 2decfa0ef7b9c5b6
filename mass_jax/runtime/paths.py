"""Paths under which orbax can save checkpoints and read them back."""

import os
import pathlib

from mass_jax.errors import UserError

# When orbax merges what the processes wrote it looks for their files by an unescaped glob pattern, which `*?[` change.
# It normalizes backslashes, and takes ":/" for the scheme of a URL.
_SAVING = ("[", "*", "?")
_ALWAYS = ("\\", ":/")


def check_checkpoint_path(directory: str | pathlib.Path, *, saving: bool = True) -> None:
    """Checks that checkpoints under a directory can be written and read back; touches no file.

    A symbolic link with an ordinary name to such a directory works.

    Args:
        directory: absolute, or relative to the working directory.
        saving: also refuse what can only be read.

    Raises:
        UserError: names the part of the path that is at fault.

    >>> check_checkpoint_path("runs/tiny")
    >>> check_checkpoint_path("runs/lr=[0.1]")
    Traceback (most recent call last):
    ...
    mass_jax.errors.UserError: runs/lr=[0.1]: checkpoints under a path with '[' cannot be read back; use another path
    """
    path = f"{pathlib.Path(directory).absolute()}/"  # more parts follow
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
