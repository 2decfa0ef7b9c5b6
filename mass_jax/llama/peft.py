"""Reading and writing of adapters in the file format of Hugging Face's `peft`, without that library."""

import json
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from mass_jax import projections
from mass_jax.errors import UserError
from mass_jax.llama import adapter_config, lora
from mass_jax.llama.config import LlamaConfig
from mass_jax.llama.safefile import SafeFile
from mass_jax.types import Adapter

_WEIGHTS = "adapter_model.safetensors"


def save(path: str | pathlib.Path, adapter: Adapter, *, rslora: bool = False) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, which `peft.PeftModel.from_pretrained` loads.

    Args:
        path: directory, created if it does not exist.
        adapter: a shared adapter. Its scale is written as `lora_alpha`, scale * rank (rsLoRA: scale * sqrt(rank)).
        rslora: whether the factor on A B is alpha / sqrt(rank) instead of alpha / rank.

    Raises:
        UserError: the projections differ in rank.
        ValueError: the adapter is batched.
    """
    pairs = {
        name: pair
        for parent in lora.checked(adapter, batched=False).leaves["layers"].values()
        for name, pair in parent.items()
    }
    ranks = sorted({pair["a"].shape[-1] for pair in pairs.values()})
    if len(ranks) > 1:
        raise UserError(f"the adapter has ranks {ranks}: use the same rank for all projections")
    rank = ranks[0]
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": rank,
        "lora_alpha": _alpha(adapter.scale, rank, rslora),
        "use_rslora": rslora,
        "target_modules": list(pairs),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    tensors = {}
    for name, pair in pairs.items():
        for letter, leaf in (("A", np.asarray(pair["a"])), ("B", np.asarray(pair["b"]))):
            for layer, value in enumerate(leaf):
                tensors[_tensor_name(layer, name, letter)] = np.ascontiguousarray(value.T)
    directory = pathlib.Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, directory / _WEIGHTS, metadata={"format": "pt"})
    (directory / adapter_config.NAME).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _alpha(scale: float, rank: int, rslora: bool) -> float:
    """`lora_alpha`, to the 12 digits that are left after a division by the rank and a multiplication with it."""
    alpha = round(scale * (math.sqrt(rank) if rslora else rank), 12)
    return int(alpha) if alpha.is_integer() else alpha


def load(path: str | pathlib.Path, config: LlamaConfig, dtype: jax.typing.DTypeLike = jnp.float32) -> Adapter:
    """Reads a LoRA adapter written by `save` or `peft`.

    Args:
        path: directory with adapter_config.json and adapter_model.safetensors.
        config: configuration of the base model.
        dtype: dtype of the leaves.

    Returns:
        A shared adapter with the trained leaves and their scale.

    Raises:
        FileNotFoundError: a file is missing.
        UserError: the adapter is not plain LoRA on Llama's projections, or does not fit the model; the message names
            the cause.

    >>> import tempfile
    >>> config = LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=2, num_attention_heads=2,
    ...                      intermediate_size=8)
    >>> with tempfile.TemporaryDirectory() as path:
    ...     save(path, lora.init(jax.random.key(0), config, rank=2, scale=3.0))
    ...     load(path, config).scale
    3.0
    """
    directory = pathlib.Path(path)
    settings = adapter_config.read(directory / adapter_config.NAME)
    if not (directory / _WEIGHTS).is_file():
        pickled = (directory / "adapter_model.bin").is_file()
        fix = "save it again with safe_serialization=True" if pickled else "give a directory written by peft"
        raise FileNotFoundError(f"{directory / _WEIGHTS} does not exist: {fix}")
    file = SafeFile(directory / _WEIGHTS)
    targets = adapter_config.projections(settings, config)
    if extra := set(file.shapes) - _names(config, targets):
        raise UserError(
            f"{directory / _WEIGHTS} has unexpected {min(extra)!r}: it does not match the model or adapter_config.json"
        )
    layers: dict[str, Any] = {}
    for name in sorted(targets):
        pair = _read_pair(file, name, config, settings.rank, np.dtype(dtype))
        layers.setdefault(projections.TABLE[name].parent, {})[name] = pair
    return Adapter({"layers": layers}, settings.factor)


def _read_pair(file: SafeFile, name: str, config: LlamaConfig, rank: int, dtype: np.dtype) -> dict[str, jax.Array]:
    inputs, outputs = lora.shape_of(config, name)
    leaves = {}
    for key, letter, shape in (("a", "A", (rank, inputs)), ("b", "B", (outputs, rank))):
        rows = []
        for layer in range(config.num_hidden_layers):
            tensor = _tensor_name(layer, name, letter)
            if tensor not in file.shapes:
                raise UserError(f"{file.path} lacks {tensor}: it does not match the model or adapter_config.json")
            if file.shapes[tensor] != shape:
                raise UserError(
                    f"{tensor} has shape {file.shapes[tensor]}, but the model and adapter_config.json require {shape}"
                )
            rows.append(file.read(tensor, (slice(None), slice(None))).T.astype(dtype))
        leaves[key] = jnp.asarray(np.stack(rows))
    return leaves


def _names(config: LlamaConfig, targets: list[str]) -> set[str]:
    layers = range(config.num_hidden_layers)
    return {_tensor_name(layer, name, letter) for layer in layers for name in targets for letter in "AB"}


def _tensor_name(layer: int, name: str, letter: str) -> str:
    return f"base_model.model.model.layers.{layer}.{projections.TABLE[name].parent}.{name}.lora_{letter}.weight"
