"""The workdir: one configuration each, and files that are whole or absent."""

import json
import os
import pathlib

from mass_jax.errors import UserError


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


def claim_workdir(workdir: pathlib.Path, settings_json: str) -> None:
    """Writes the settings into a workdir; to be called when nothing can be refused any more."""
    write_atomically(workdir / "config.json", settings_json + "\n")


def write_atomically(path: pathlib.Path, text: str, mode: int = 0o666) -> None:
    """Writes a file so that a kill leaves the old content or the new, never a part; its mode is under the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
