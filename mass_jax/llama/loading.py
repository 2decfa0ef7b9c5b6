"""Loading of a model, its parameters and its tokenizer in one call."""

import importlib.resources
import pathlib
from typing import Any, NamedTuple

import jax

from mass_jax.llama import hub, tokenizer, weights
from mass_jax.llama.config import LlamaConfig
from mass_jax.llama.model import Llama
from mass_jax.types import Params


class Loaded(NamedTuple):
    """A language model ready to use.

    Attributes:
        model: the Flax module.
        params: its parameters, on one device.
        tokenizer: a `transformers.PreTrainedTokenizerFast`.
    """

    model: Llama
    params: Params
    tokenizer: Any


def load(model: str | pathlib.Path, dtype: jax.typing.DTypeLike = "float32") -> Loaded:
    """Loads a model in Hugging Face format: a Llama, or one of the other families of `mass_jax.llama.families`.

    Args:
        model: a directory, a hub id, or "tiny" for the model that ships with the package.
        dtype: dtype of the parameters.

    Returns:
        `(model, params, tokenizer)`.

    Raises:
        FileNotFoundError: a file is missing; or the directory does not exist, and the hub has no such id or cannot be
            reached.
        UserError: a file is damaged, or the files contradict each other; the message names the cause.

    >>> model, params, tokenizer = load("tiny")
    >>> model.config.num_hidden_layers, tokenizer.eos_token
    (3, '</s>')
    """
    directory = model_directory(str(model))
    config = LlamaConfig.from_directory(directory)
    return Loaded(Llama(config), weights.load(directory, config, dtype=dtype), tokenizer.load(directory))


def model_directory(model: str) -> pathlib.Path:
    """Returns the directory of a model's files: the embedded "tiny", a local directory, or a snapshot of a hub id.

    Raises:
        FileNotFoundError: the directory does not exist, and the hub has no such id or cannot be reached.
    """
    if model == "tiny":
        return pathlib.Path(str(importlib.resources.files("mass_jax") / "data" / "tiny"))
    return hub.model_directory(model)
