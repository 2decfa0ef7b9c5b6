"""Resolution of a model's name to a directory: a local one, or a snapshot from the Hugging Face hub."""

import pathlib

from mass_jax import hub_access

FILES = ("*.json", "*.safetensors", "*.jinja")


def model_directory(model: str | pathlib.Path) -> pathlib.Path:
    """Returns the directory of a model's files; a hub id is downloaded once, then read from the hub's cache.

    Args:
        model: a local directory, or a hub id such as "org/name" or "org/name@revision". Hub downloads respect HF_TOKEN,
            HF_HOME and HF_HUB_OFFLINE.

    Returns:
        A directory for `LlamaConfig.from_directory`, `weights.load` and `tokenizer.load`.

    Raises:
        FileNotFoundError: the directory does not exist, and the hub has no such id, refuses access or cannot be
            reached; the message is one line with the fix.
        UserError: the revision is empty.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path:
    ...     str(model_directory(path)) == path
    True
    """
    if pathlib.Path(model).is_dir():
        return pathlib.Path(model)
    import huggingface_hub  # imported here because local files do not need it

    hub_id, revision = hub_access.split_revision(str(model))
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(hub_id, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the hub client has no common base class for bad names, refusals and network errors
        raise FileNotFoundError(
            f"model {str(model)!r} is not a directory, and cannot be downloaded from the hub: "
            f"{hub_access.reason(error, hub_id)}"
        ) from None
