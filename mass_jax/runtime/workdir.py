"""The workdir: one configuration each, and files that are whole or absent."""

import json
import os
import pathlib
import time

from mass_jax.errors import UserError
from mass_jax.runtime.distributed import agreed_maximum, is_first
from mass_jax.runtime.paths import check_checkpoint_path


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


def check_workdir(workdir: pathlib.Path, settings_json: str) -> None:
    """Checks that a workdir is new, or was started with the same settings; writes nothing.

    Raises:
        UserError: if the workdir belongs to other settings; names the first that differs, both values and the fix.
    """
    path = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a directory")
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged; choose another --workdir, or remove this one") from None
    now = json.loads(settings_json)
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise UserError(
                f"--workdir={workdir} was started with {name}={before.get(name)!r}, now it is {now.get(name)!r}; "
                f"choose another --workdir, or give the same settings to resume"
            )


def claim_workdir(workdir: pathlib.Path, settings_json: str, patience: float = 90.0) -> None:
    """Writes the settings into a workdir, by one process for all; to be called when nothing else can be refused.

    Args:
        workdir: of this run.
        settings_json: its settings.
        patience: seconds in which the other processes are to see them; disks on a network show new files late.

    Raises:
        UserError: if it cannot be written, or another process does not find it: the hosts do not share it.
    """
    path, cause = workdir / "config.json", None
    if is_first():
        try:
            write_atomically(path, settings_json + "\n")
        except OSError as error:
            cause = error
    if agreed_maximum(cause is not None):
        reason = cause.strerror if cause is not None else "by process 0"
        raise UserError(f"--workdir={workdir} cannot be written ({reason}); choose another") from cause
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
    temporary.replace(path)
