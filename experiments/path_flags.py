"""Flags whose values are paths; a leading `~` is expanded."""

from typing import Any

from absl import flags

from mass_jax.config import expand_user

flags.disclaim_key_flags()  # list these flags in the --help of the module that defines them


class _PathParser(flags.ArgumentParser):
    """Accepts a path, or a name that the command resolves itself, such as a hub id."""

    def parse(self, argument: str) -> str:
        if not argument:
            raise ValueError("an empty path; pass a directory or file, or omit the flag")
        return expand_user(argument)

    def flag_type(self) -> str:
        return "path"


class _PathListParser(flags.ListParser):
    """Accepts a comma-separated list of paths."""

    def parse(self, argument: str | list[str]) -> list[str]:
        return [_PathParser().parse(path) for path in super().parse(argument)]


def DEFINE_path(name: str, default: str | None, help_text: str, **options: Any) -> flags.FlagHolder:
    """Defines a flag whose value is a path, or a name such as a hub id.

    Args:
        name: Name of the flag.
        default: Default value.
        help_text: Description for --help.
        **options: Passed to `flags.DEFINE`.

    Returns:
        The flag's holder.
    """
    return flags.DEFINE(_PathParser(), name, default, help_text, serializer=flags.ArgumentSerializer(), **options)


def DEFINE_path_list(name: str, help_text: str, **options: Any) -> flags.FlagHolder:
    """Defines a flag whose value is a comma-separated list of paths; empty by default."""
    return flags.DEFINE(_PathListParser(), name, [], help_text, serializer=flags.CsvListSerializer(","), **options)
