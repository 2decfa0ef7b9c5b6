"""Loads a model, its parameters and its tokenizer in one call."""

import importlib.resources
import pathlib
from typing import Any, NamedTuple

import jax

from mass_jax.llama import hub, tokenizer, weights
from mass_jax.llama.config import LlamaConfig
from mass_jax.llama.model import Llama


class Loaded(NamedTuple):
    """A language model ready to use.

    Attributes:
        model: the Flax module.
        params: its parameters.
        tokenizer: a transformers tokenizer.
    """

    model: Llama
    params: Any
    tokenizer: Any


def load(model: str | pathlib.Path, dtype: jax.typing.DTypeLike = "float32") -> Loaded:
    """Loads a Llama model in Hugging Face format.

    Args:
        model: a directory, a hub id, or "tiny" for the model that ships with the package.
        dtype: of the parameters.

    Returns:
        `(model, params, tokenizer)`.

    Raises:
        FileNotFoundError: no such directory, and the hub cannot be reached for such an id.
        ValueError: the files are damaged or contradict each other.

    >>> model, params, tokenizer = load("tiny")
    >>> model.config.num_hidden_layers, tokenizer.eos_token
    (3, '</s>')
    """
    directory = model_directory(str(model))
    config = LlamaConfig.from_directory(directory)
    return Loaded(Llama(config), weights.load(directory, config, dtype=dtype), tokenizer.load(directory))


def model_directory(model: str) -> pathlib.Path:
    """Returns the directory of a model's files: that of the embedded "tiny", a local one, or a hub snapshot.

    Raises:
        FileNotFoundError: no such directory, and the hub cannot be reached for such an id.
    """
    if model == "tiny":
        return pathlib.Path(str(importlib.resources.files("mass_jax") / "data" / "tiny"))
    return hub.model_directory(model)
