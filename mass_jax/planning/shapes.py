"""Architectures of models that are planned for without downloading them."""

import pathlib

from mass_jax.llama import LlamaConfig
from mass_jax.llama.published import PUBLISHED
from mass_jax.training.components import model_directory


def shape_of(model: str) -> LlamaConfig:
    """Returns the architecture of `--model`, from its local files or from `PUBLISHED`.

    Raises:
        FileNotFoundError: If the model has no local files and is not published here.

    >>> shape_of("meta-llama/Llama-3.1-8B-Instruct").num_hidden_layers
    32
    """
    if model in PUBLISHED and not pathlib.Path(model).is_dir():
        return PUBLISHED[model]
    return LlamaConfig.from_directory(model_directory(model))
