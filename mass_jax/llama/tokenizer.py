"""Tokenizers from local Hugging Face files, and encoding of texts for a model to continue."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mass_jax.aliases import Tokenizer
from mass_jax.errors import UserError, first_line
from mass_jax.llama import jsonfile

if TYPE_CHECKING:
    from mass_jax.llama.config import LlamaConfig

_FILE, _CONFIG = "tokenizer.json", "tokenizer_config.json"


def load(path: str | pathlib.Path) -> Tokenizer:
    """Loads the tokenizer of a model directory, with its chat template; does not run code from the directory.

    Args:
        path: a directory with tokenizer.json, and optionally tokenizer_config.json.

    Returns:
        A `transformers.PreTrainedTokenizerFast`.

    Raises:
        FileNotFoundError: tokenizer.json does not exist.
        UserError: a file is damaged; the message names it.
    """
    directory = pathlib.Path(path)
    if not (directory / _FILE).is_file():
        raise FileNotFoundError(f"{directory / _FILE} does not exist: give a Hugging Face model directory")
    if (directory / _CONFIG).is_file():
        _check_templates(directory / _CONFIG, jsonfile.read(directory / _CONFIG).get("chat_template"))
    # Imported here because transformers takes seconds to import and the model alone does not need it.
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain Exceptions
        reason = first_line(error)
        raise UserError(f"{directory / _FILE} and {_CONFIG} cannot be loaded ({reason}): download them again") from None


def _check_templates(file: pathlib.Path, templates: Any) -> None:
    """Refuses a list of templates that transformers cannot read."""
    for one in templates if isinstance(templates, list) else []:
        if not isinstance(one, dict) or not all(isinstance(one.get(key), str) for key in ("name", "template")):
            raise UserError(f"{file}: entries of the list 'chat_template' lack 'name' or 'template': add them")


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encodes a text for a model to continue.

    The text starts with one bos token if the tokenizer adds one. Tokens that the tokenizer appends, such as eos, are
    removed, because the model would see a text that has ended.

    Args:
        tokenizer: from `load`.
        text: the text; special tokens in it are encoded as such.

    Returns:
        Token ids.

    >>> import importlib.resources
    >>> tokenizer = load(str(importlib.resources.files("mass_jax") / "data" / "tiny"))
    >>> encode(tokenizer, "solve 1") == encode(tokenizer, "<s> solve 1")
    True
    """
    return encode_all(tokenizer, [text])[0]


def encode_all(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Encodes texts as `encode` does, in one call of the tokenizer, which is several times faster."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), return_special_tokens_mask=True)
    rows = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    return [_without_end(tokenizer, list(ids), list(added)) for ids, added in rows]


def _without_end(tokenizer: Tokenizer, ids: list[int], added: list[int]) -> list[int]:
    """Removes the tokens that the tokenizer appended, and a second bos token.

    Args:
        tokenizer: from `load`.
        ids: token ids.
        added: 1 for special tokens that the tokenizer added.
    """
    front = len(list(itertools.takewhile(bool, added)))
    if front == len(ids):  # an empty text: keep a leading bos only
        return ids[: front and int(ids[0] == tokenizer.bos_token_id)]
    back = len(list(itertools.takewhile(bool, reversed(added))))
    ids = ids[: len(ids) - back]
    bos = tokenizer.bos_token_id
    while front and ids[0] == bos and ids[front : front + 1] == [bos]:
        del ids[front]
    return ids


def adds_bos(tokenizer: Tokenizer) -> bool:
    """Returns whether `encode` starts texts with the tokenizer's bos token."""
    return tokenizer.bos_token_id is not None and encode(tokenizer, "a")[:1] == [tokenizer.bos_token_id]


def end_token(tokenizer: Tokenizer, config: "LlamaConfig") -> int:
    """Returns the token that ends a completion, in training and in sampling.

    Args:
        tokenizer: from `load`.
        config: configuration of the model.

    Returns:
        The tokenizer's eos token, or the model's first end token if the tokenizer has none.

    Raises:
        UserError: neither has one.

    >>> import types
    >>> from mass_jax.llama import LlamaConfig
    >>> end_token(types.SimpleNamespace(eos_token_id=None), LlamaConfig(eos_token_id=(2, 7)))
    2
    """
    if tokenizer.eos_token_id is not None:
        return tokenizer.eos_token_id
    if not config.stop_tokens:
        raise UserError(f"the model's files define no end token: set 'eos_token' in {_CONFIG}, or 'eos_token_id'")
    return config.stop_tokens[0]


def check_vocabulary(tokenizer: Tokenizer, config: "LlamaConfig", directory: pathlib.Path) -> None:
    """Checks that the tokenizer's ids are below the model's vocabulary size.

    Args:
        tokenizer: from `load`.
        config: configuration of the model.
        directory: directory of both, for the error message.

    Raises:
        UserError: the tokenizer has larger ids.
    """
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= config.vocab_size:
        raise UserError(
            f"{directory}: the tokenizer has ids up to {largest}, but vocab_size is {config.vocab_size}: "
            "use the tokenizer and config.json of the same model"
        )
