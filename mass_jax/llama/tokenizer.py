"""Tokenizers from local Hugging Face files."""

import pathlib
from typing import Any


def load(path: str | pathlib.Path) -> Any:
    """The tokenizer of a model directory, with its chat template; runs no code of the directory.

    Args:
      path: a directory with tokenizer.json (and tokenizer_config.json).

    Returns:
      A `transformers.PreTrainedTokenizerFast`.
    """
    directory = pathlib.Path(path)
    if not (directory / "tokenizer.json").is_file():
        raise FileNotFoundError(f"{directory / 'tokenizer.json'} does not exist: give a Hugging Face model directory")
    # Imported late: transformers takes seconds, and the model alone does not need it.
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        reason = str(error).splitlines()[0]
        raise ValueError(f"{directory / 'tokenizer.json'} does not load ({reason}): download it again") from None
