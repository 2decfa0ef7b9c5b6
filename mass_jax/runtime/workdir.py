"""Workdirs, which belong to one configuration each, and atomic writes."""

import json
import os
import pathlib
import time
from collections.abc import Collection
from typing import Any

from mass_jax.config.config import completed
from mass_jax.errors import UserError
from mass_jax.runtime.distributed import agreed_maximum, is_first
from mass_jax.runtime.paths import check_checkpoint_path

CONFIG_NAME = "config.json"
EPS_ROOT_NAME = "inner_eps_root.json"  # the value of --inner_eps_root=auto
_SETTINGS = ((CONFIG_NAME,), (EPS_ROOT_NAME,))
MONITORING = ("drift_every", "on_weak_signal", "sampler_timeout", "sampler_url", "signal_every", "tracker")
"""Settings that change what a run measures and logs, or where its server is, but not its results; they may differ in
every workdir."""


def workdir_path(given: str, flag: str = "workdir") -> pathlib.Path:
    """Returns the path of `--workdir`, or of another flag that names a run's directory.

    Raises:
        UserError: If the value is a URL, which `pathlib` would treat as a local directory, or a path from which
            checkpoints cannot be read back.

    >>> workdir_path("runs/tiny").name
    'tiny'
    """
    if "://" in given:
        raise UserError(
            f"--{flag}={given.partition('?')[0]} is a URL, which this command does not take; give a directory on a "
            f"disk that all hosts share"
        )
    check_checkpoint_path(given)
    return pathlib.Path(given)


def check_workdir(workdir: pathlib.Path, settings_json: str, free: Collection[str] = (), replace: bool = False) -> None:
    """Checks that a run with these settings may write into a workdir; writes nothing.

    The workdir must be absent, empty except for hidden files, or contain these settings in its config.json.

    Args:
        workdir: directory to check.
        settings_json: settings of the run, as a JSON object.
        free: names of settings that may differ, besides those of `MONITORING`.
        replace: whether all settings may differ while the workdir contains no results.

    Raises:
        UserError: If the workdir belongs to other or unknown settings; the message names the first difference, both
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
    try:
        check_settings(str(workdir), before, settings_json, free)
    except UserError:
        if not replace or holds_results(workdir):
            raise


def check_settings(workdir: str, before: dict[str, Any], settings_json: str, free: Collection[str] = ()) -> None:
    """Checks that a run with these settings may resume one.

    Args:
        workdir: path or URL of the workdir, for the message.
        before: settings in the workdir, by name.
        settings_json: settings of the run, as a JSON object.
        free: names of settings that may differ, besides those of `MONITORING`.

    Raises:
        UserError: If a setting differs; the message names the first one, both values and the fix.
    """
    if difference := _first_difference(completed(before), completed(json.loads(settings_json)), free):
        raise UserError(
            f"--workdir={workdir} was started with {difference}; choose another --workdir, or give the same settings "
            f"to resume"
        )


def read_settings(path: pathlib.Path) -> dict[str, Any] | None:
    """Reads the settings of a workdir.

    Returns:
        The settings by name, or None if the file does not exist.

    Raises:
        UserError: If the file cannot be read or does not contain a JSON object.
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
    """Describes the first setting that differs, in alphabetical order, with both values; "" if none does."""
    for name in sorted({*before, *now} - {*free, *MONITORING}):
        if before.get(name) != now.get(name):
            return f"{name}={before.get(name)!r}, now it is {now.get(name)!r}"
    return ""


def holds_results(workdir: pathlib.Path) -> bool:
    """Returns whether a workdir contains results: any non-empty file other than settings and hidden files.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     holds_results(pathlib.Path(name))
    False
    """
    for path in workdir.rglob("*"):
        parts = path.relative_to(workdir).parts
        unfinished = any(part.startswith(".") or ".orbax-checkpoint-tmp" in part for part in parts)
        if parts not in _SETTINGS and not unfinished and path.is_file() and path.stat().st_size:
            return True
    return False


def _listed(directory: pathlib.Path) -> list[pathlib.Path]:
    """Lists a directory; an absent one counts as empty."""
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
    """Writes the settings of a run into its workdir. All processes must call this; process 0 writes.

    Call this once all other input has been validated, with the workdir locked. Existing settings that differ only in
    `free` are kept.

    Args:
        workdir: directory of the run.
        settings_json: settings of the run, as a JSON object.
        free, replace: see `check_workdir`.
        patience: seconds to wait until the other processes see the file, since network file systems may be slow.

    Raises:
        UserError: If `check_workdir` refuses the workdir, it cannot be written, or another process does not see it
            because the hosts do not share it.
    """
    path, failure = workdir / CONFIG_NAME, ""
    if is_first():
        try:
            check_workdir(workdir, settings_json, free, replace)
            before = read_settings(path)
            if before is None or _first_difference(completed(before), completed(json.loads(settings_json)), free):
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
    """Writes a file atomically: after a kill it has either its old contents or the new.

    Args:
        path: file to write; its parent directories are created.
        text: new contents.
        mode: permissions of the file, subject to the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
