"""Resolution of a model's name to a directory: a local one, or a snapshot from the Hugging Face hub."""

import pathlib

FILES = ("*.json", "*.safetensors", "*.jinja")


def model_directory(model: str | pathlib.Path) -> pathlib.Path:
    """Returns the directory of a model's files; a hub id is downloaded once, then read from the hub's cache.

    Args:
        model: a local directory, or a hub id such as "org/name". Hub downloads respect HF_TOKEN, HF_HOME and
            HF_HUB_OFFLINE.

    Returns:
        A directory for `LlamaConfig.from_directory`, `weights.load` and `tokenizer.load`.

    Raises:
        FileNotFoundError: the directory does not exist, and the hub has no such id or cannot be reached.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path:
    ...     str(model_directory(path)) == path
    True
    """
    if pathlib.Path(model).is_dir():
        return pathlib.Path(model)
    import huggingface_hub  # imported here because local files do not need it

    try:
        return pathlib.Path(huggingface_hub.snapshot_download(str(model), allow_patterns=list(FILES)))
    except Exception as error:  # the hub client has no common base class for bad names, refusals and network errors
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(
            f"model {str(model)!r} is not a directory, and cannot be downloaded from the hub ({reason})"
        ) from None
