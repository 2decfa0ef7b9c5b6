"""Names of launches."""

import string

LONGEST_NAME = 40
_LETTERS = frozenset(string.ascii_lowercase + string.digits + "-")


def check_name(backend: str, name: str) -> None:
    """Checks that a backend takes a name; an empty one is left to the backend.

    Raises:
        ValueError: If it does not.
    """
    if name and backend in ("gcloud", "xpk", "skypilot") and not _is_resource_name(name):
        raise ValueError(
            f"--name={name!r}: {backend} takes names of at most {LONGEST_NAME} lowercase letters, digits and hyphens "
            f"that start with a letter; choose another"
        )


def _is_resource_name(name: str) -> bool:
    return len(name) <= LONGEST_NAME and name[0].isalpha() and not name.endswith("-") and set(name) <= _LETTERS
