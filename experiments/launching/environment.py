"""Environment variables of a launched command; their values never enter a recipe."""

import itertools
import os
import pathlib
from collections.abc import Iterable, Mapping

# The recipe itself runs with these.
_OF_THE_SHELL = frozenset(
    ("BASHOPTS", "BASH_ENV", "ENV", "EUID", "HOME", "IFS", "OLDPWD", "PATH", "PPID", "PWD", "SHELLOPTS", "UID")
)


def variables(
    given: Iterable[str], env_file: str | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns the variables of `--env` and `--env_file`; those of `--env` take precedence.

    Args:
        given: NAME=VALUE, or NAME to take the value from the environment.
        env_file: file with such lines; blank lines, comments (also after a value), a leading `export`, and quotes
            around a value are removed. Nothing is expanded.
        environment: environment of this process if None.

    Raises:
        ValueError: If a line or name is invalid, a variable is not set, or the file cannot be read. The message never
            contains a value.

    >>> variables(["A=1", "HF_TOKEN"], environment={"HF_TOKEN": "hf_..."})
    {'A': '1', 'HF_TOKEN': 'hf_...'}
    """
    known = os.environ if environment is None else environment
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(env_file) if env_file else (), 1):
        text = line.strip().removeprefix("export ").lstrip()
        if text and not text.startswith("#"):
            name, value = _variable(text, known, f"--env_file={env_file}, line {number}")
            found[name] = _unquoted(value) if "=" in text else value
    for text in given:
        name, value = _variable(text, known, "--env")
        found[name] = value
    return found


def _lines(env_file: str) -> list[str]:
    try:
        return pathlib.Path(env_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"--env_file={env_file} cannot be read: {reason}; give a file with NAME=VALUE lines") from None


def _variable(text: str, known: Mapping[str, str], where: str) -> tuple[str, str]:
    """Splits NAME=VALUE, or looks NAME up."""
    name, separator, value = text.partition("=")
    if not (name.isascii() and name.isidentifier()):
        # A text without "=" may be a value that was pasted without its name.
        raise ValueError(f"{where}: not NAME=VALUE or NAME; a name has letters, digits and underscores")
    if name in _OF_THE_SHELL:
        raise ValueError(f"{where}: {name} belongs to the shell; set it in the image or on the hosts")
    if not separator and name not in known:
        raise ValueError(f"{where}: {name} is not set in this environment; export it, or give {name}=VALUE")
    value = value if separator else known[name]
    if "\0" in value:
        raise ValueError(f"{where}: the value of {name} has a null character; remove it")
    return name, value


def _unquoted(value: str) -> str:
    """Returns a value of a file without its quotes, or without the comment that follows it."""
    stripped = value.strip()
    quote = stripped[:1]
    if quote in ("'", '"'):
        inside, _, after = stripped[1:].partition(quote)
        if after[:1].isspace() and after.lstrip().startswith("#"):
            return inside
        if len(stripped) >= 2 and stripped[-1] == quote:
            return stripped[1:-1]
    starts = (i for i, (before, sign) in enumerate(itertools.pairwise(value)) if sign == "#" and before.isspace())
    return value[: next(starts, len(value))].strip()
