"""Ids on the Hugging Face hub, with an optional revision, and reasons in one line why they cannot be loaded."""

from mass_jax.errors import UserError, first_line


def split_revision(name: str) -> tuple[str, str | None]:
    """Splits `org/name@revision` into the id and the revision, which is None if absent.

    Args:
        name: id on the hub, or a name without a slash, optionally followed by `@` and a branch, tag or commit.

    Raises:
        UserError: If the revision is empty.

    Example:
        >>> split_revision("org/name@v1.0"), split_revision("org/name")
        (('org/name', 'v1.0'), ('org/name', None))
    """
    hub_id, mark, revision = name.partition("@")
    if mark and not revision:
        raise UserError(f"{name!r} has no revision after '@'; give a branch, tag or commit, or remove the '@'")
    return hub_id, revision or None


def reason(error: BaseException, hub_id: str, kind: str = "model") -> str:
    """Explains in one line why a repository cannot be loaded, with the fix; never contains the token.

    Args:
        error: exception of `huggingface_hub` or of a library that uses it. Its causes are searched too.
        hub_id: id of the repository.
        kind: "model" or "dataset".

    Example:
        >>> reason(ConnectionError("no route to host"), "org/name")
        'no route to host; check the connection and the id, or give a local path'
    """
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{hub_id}"
    noun = {"dataset": "data set"}.get(kind, kind)
    causes = _causes(error)
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        return f"{hub_id} is gated; accept its license at {page} and set HF_TOKEN to a token of that account"
    if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
        return (
            f"the hub has no {noun} {hub_id}, or it is private; check the id, or, if it exists, accept its license at "
            f"{page} and set HF_TOKEN to a token that may read it"
        )
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return f"{hub_id} has no such revision; give a branch, tag or commit listed at {page}/tree/main"
    status = next((c.response.status_code for c in causes if isinstance(c, errors.HfHubHTTPError)), None)
    if status in (401, 403):
        return f"the hub refuses access ({status}); set HF_TOKEN to a valid token that may read {page}"
    # Errors about the headers of a request quote the token, or a part of it.
    if isinstance(error, UnicodeError) or "Bearer" in str(error):
        return "HF_TOKEN has characters that a request cannot contain; set it again"
    return f"{first_line(error).removesuffix('.')}; check the connection and the id, or give a local path"


def _causes(error: BaseException) -> list[BaseException]:
    """Returns the error and the exceptions that caused it."""
    causes: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in causes:
        causes.append(current)
        current = current.__cause__
    return causes
