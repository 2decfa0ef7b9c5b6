"""Names of launches and of the repositories that they clone."""

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


def check_repository(url: str) -> None:
    """Checks that the URL of a repository has no credentials, which would enter the recipe and stay on the hosts.

    User names of ssh are not credentials. The message never contains the URL.

    Raises:
        ValueError: If it has.

    >>> check_repository("git@github.com:owner/name"), check_repository("ssh://git@github.com/owner/name")
    (None, None)
    """
    scheme, separator, rest = url.partition("://")
    user, at, _ = rest.replace("?", "/").replace("#", "/").partition("/")[0].rpartition("@")
    if separator and at and (scheme.lower() != "ssh" or ":" in user):
        raise ValueError(
            "--repository has credentials, which would be in the recipe and on the hosts; remove what precedes the @, "
            "and give a URL that the hosts can read without them"
        )


def _is_resource_name(name: str) -> bool:
    return len(name) <= LONGEST_NAME and name[0].isalpha() and not name.endswith("-") and set(name) <= _LETTERS
