"""Workdirs: one configuration each, and files that are whole or absent."""

import json
import os
import pathlib
import time
from collections.abc import Collection
from typing import Any

from mass_jax.errors import UserError
from mass_jax.runtime.distributed import agreed_maximum, is_first
from mass_jax.runtime.paths import check_checkpoint_path

CONFIG_NAME = "config.json"


def workdir_path(given: str) -> pathlib.Path:
    """Returns the path of `--workdir`.

    Raises:
        UserError: a URL, which `pathlib` would take for a directory of that name on the disk of each host; or a path
            from which checkpoints cannot be read back.

    >>> workdir_path("runs/tiny").name
    'tiny'
    """
    if "://" in given:
        raise UserError(
            f"--workdir={given} is no directory of this machine; mount the bucket, or a disk that all hosts share, "
            f"and give the path where it is"
        )
    check_checkpoint_path(given)
    return pathlib.Path(given)


def check_workdir(workdir: pathlib.Path, settings_json: str, free: Collection[str] = (), replace: bool = False) -> None:
    """Checks that results of these settings may be written into a workdir; writes nothing.

    It must be empty or absent, but for hidden files, or have these settings in its config.json.

    Args:
        workdir: the directory.
        settings_json: the settings, a JSON object.
        free: names of settings that may differ.
        replace: whether any may differ while the workdir holds no results.

    Raises:
        UserError: the workdir belongs to other settings, or nobody knows to which; names the first that differs, both
            values and the fix.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a directory")
    before = read_settings(workdir / CONFIG_NAME)
    if before is None:
        content = [path.name for path in _listed(workdir) if not path.name.startswith(".")]
        if content:
            raise UserError(
                f"--workdir={workdir} holds {min(content)!r} but no {CONFIG_NAME}, so its settings are unknown; choose "
                f"another --workdir, or restore {CONFIG_NAME}"
            )
        return
    difference = _first_difference(before, json.loads(settings_json), free)
    if difference and not (replace and not holds_results(workdir)):
        raise UserError(
            f"--workdir={workdir} was started with {difference}; choose another --workdir, or give the same settings "
            f"to resume"
        )


def read_settings(path: pathlib.Path) -> dict[str, Any] | None:
    """Reads the settings of a workdir.

    Returns:
        The settings by name; None where there is no such file.

    Raises:
        UserError: the file cannot be read or is no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{path} is damaged; choose another --workdir, or remove this one") from None
    if not isinstance(found, dict):
        raise UserError(
            f"{path} holds {str(found)[:20]!r} instead of an object of settings; choose another --workdir, or remove "
            f"this one"
        )
    return found


def _first_difference(before: dict[str, Any], now: dict[str, Any], free: Collection[str]) -> str:
    """The first setting by name that differs, with both values; "" if none does."""
    for name in sorted({*before, *now} - {*free}):
        if before.get(name) != now.get(name):
            return f"{name}={before.get(name)!r}, now it is {now.get(name)!r}"
    return ""


def holds_results(workdir: pathlib.Path) -> bool:
    """Whether anything in a workdir would be lost with its settings: any file with content, but for hidden ones.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     holds_results(pathlib.Path(name))
    False
    """
    for path in workdir.rglob("*"):
        parts = path.relative_to(workdir).parts
        unfinished = any(part.startswith(".") or ".orbax-checkpoint-tmp" in part for part in parts)
        if parts != (CONFIG_NAME,) and not unfinished and path.is_file() and path.stat().st_size:
            return True
    return False


def _listed(directory: pathlib.Path) -> list[pathlib.Path]:
    """The content of a directory; an absent one has none."""
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"--workdir={directory} cannot be read ({error.strerror}); choose another") from None


def claim_workdir(
    workdir: pathlib.Path,
    settings_json: str,
    free: Collection[str] = (),
    replace: bool = False,
    patience: float = 90.0,
) -> None:
    """Writes the settings into a workdir, by one process for all. Call it when nothing else can be refused.

    Settings that differ in `free` only stay as they are. The caller holds the lock of the workdir.

    Args:
        workdir: of this run.
        settings_json: its settings, a JSON object.
        free, replace: as in `check_workdir`.
        patience: seconds in which the other processes are to see them; disks on a network show new files late.

    Raises:
        UserError: `check_workdir` refuses it, it cannot be written, or another process does not find it: the hosts do
            not share it.
    """
    path, failure = workdir / CONFIG_NAME, ""
    if is_first():
        try:
            check_workdir(workdir, settings_json, free, replace)
            before = read_settings(path)
            if before is None or _first_difference(before, json.loads(settings_json), free):
                write_atomically(path, settings_json + "\n")
        except OSError as error:
            failure = f"--workdir={workdir} cannot be written ({error.strerror}); choose another"
        except UserError as error:
            failure = str(error)
    if agreed_maximum(bool(failure)):
        raise UserError(failure or f"process 0 cannot use --workdir={workdir}; see its error")
    deadline = time.monotonic() + patience
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    if agreed_maximum(not path.exists()):
        raise UserError(
            f"--workdir={workdir} is not one directory for all processes; give one on a disk that their hosts share"
        )


def write_atomically(path: pathlib.Path, text: str, mode: int = 0o666) -> None:
    """Writes a file so that a kill leaves the old content or the new, never a part; its mode is under the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
