"""Flags whose values are paths; `~` is expanded in each of them."""

from typing import Any

from absl import flags

from mass_jax.config import expand_user

flags.disclaim_key_flags()  # these flags belong to the module that defines them, and show in its --help


class _PathParser(flags.ArgumentParser):
    """Accepts a path, or a name that may stand in its place."""

    def parse(self, argument: str) -> str:
        if not argument:
            raise ValueError("an empty path; give a directory or file, or leave the flag out")
        return expand_user(argument)

    def flag_type(self) -> str:
        return "path"


class _PathListParser(flags.ListParser):
    """Accepts a comma-separated list of paths."""

    def parse(self, argument: str | list[str]) -> list[str]:
        return [_PathParser().parse(path) for path in super().parse(argument)]


def DEFINE_path(name: str, default: str | None, help_text: str, **options: Any) -> flags.FlagHolder:
    """Defines a flag whose value is a path, or a name in its place.

    Args:
        name, default, help_text: as in `flags.DEFINE_string`.
        **options: passed on to `flags.DEFINE`.
    """
    return flags.DEFINE(_PathParser(), name, default, help_text, serializer=flags.ArgumentSerializer(), **options)


def DEFINE_path_list(name: str, help_text: str, **options: Any) -> flags.FlagHolder:
    """Defines a flag whose value is a comma-separated list of paths; empty by default."""
    return flags.DEFINE(_PathListParser(), name, [], help_text, serializer=flags.CsvListSerializer(","), **options)
