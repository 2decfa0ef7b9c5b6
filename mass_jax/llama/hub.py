"""A model's name to the directory of its files: a local one, or a snapshot of a Hugging Face hub id."""

import pathlib

FILES = ("*.json", "*.safetensors", "*.jinja")


def model_directory(model: str | pathlib.Path) -> pathlib.Path:
    """The directory of a model's files; a hub id is downloaded once, and read from the hub's cache after that.

    Args:
        model: a local directory, or a hub id such as "org/name", for which HF_TOKEN, HF_HOME and HF_HUB_OFFLINE count.

    Returns:
        A directory for `LlamaConfig.from_directory`, `weights.load` and `tokenizer.load`.

    Raises:
        FileNotFoundError: no such directory, and the hub has no such id or cannot be reached.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path:
    ...     str(model_directory(path)) == path
    True
    """
    if pathlib.Path(model).is_dir():
        return pathlib.Path(model)
    import huggingface_hub  # late: it is not needed for local files

    try:
        return pathlib.Path(huggingface_hub.snapshot_download(str(model), allow_patterns=list(FILES)))
    except Exception as error:  # the hub client has no common error for bad names, refusals and a missing network
        reason = str(error).splitlines()[0]
        refusal = f"model {str(model)!r} is no directory, and not to be had from the hub ({reason})"
        raise FileNotFoundError(refusal) from None
