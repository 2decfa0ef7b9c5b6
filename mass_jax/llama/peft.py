"""Adapters in the file format of Hugging Face's `peft`, without that library."""

import json
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from mass_jax.llama import lora
from mass_jax.llama.config import LlamaConfig
from mass_jax.llama.safefile import SafeFile

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Settings that change what an adapter does, with the values under which it is plain LoRA.
_PLAIN = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": ([], None),
    "layers_to_transform": ([], None),
    "target_parameters": ([], None),
}


def save(path: str | pathlib.Path, adapter: Any, *, alpha: float | None = None, rslora: bool = False) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, which `peft.PeftModel.from_pretrained` loads.

    Args:
      path: directory, made if need be.
      adapter: its trained leaves, before `lora.scaled`.
      alpha: the effect is alpha / rank (rsLoRA: alpha / sqrt(rank)) times A B; None is a factor of 1.
      rslora: which of the two.
    """
    pairs = {name: pair for parent in adapter["layers"].values() for name, pair in parent.items()}
    ranks = sorted({pair["a"].shape[-1] for pair in pairs.values()})
    if len(ranks) > 1:
        raise ValueError(f"the adapter has ranks {ranks}: this format takes one rank for all projections")
    rank = ranks[0]
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": rank,
        "lora_alpha": (math.sqrt(rank) if rslora else rank) if alpha is None else alpha,
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
    (directory / _CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load(path: str | pathlib.Path, config: LlamaConfig, dtype: jax.typing.DTypeLike = jnp.float32) -> tuple[Any, float]:
    """Reads a LoRA adapter that `save` or `peft` wrote.

    Args:
      path: directory.
      config: of the base model.
      dtype: of the leaves.

    Returns:
      The trained leaves, and the factor to apply them with: `lora.scaled(adapter, factor)`.

    Raises:
      ValueError: it is not plain LoRA on Llama's projections, or does not fit the model; the cause is named.
    """
    directory = pathlib.Path(path)
    for name in (_CONFIG, _WEIGHTS):
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory / name} does not exist: give a directory that peft wrote")
    settings = json.loads((directory / _CONFIG).read_text(encoding="utf-8"))
    for key, plain in _PLAIN.items():
        if key in settings and settings[key] not in plain:
            raise ValueError(f"{key} is {settings[key]!r} in {directory / _CONFIG}: only {plain[0]!r} loads")
    file = SafeFile(directory / _WEIGHTS)
    targets = [name for name in lora.TARGETS if _tensor_name(0, name, "A") in file.shapes]
    shapes = jax.eval_shape(lambda: lora.init(jax.random.key(0), config, settings["r"], targets or lora.TARGETS))
    layers = {
        parent: {name: _read_pair(file, name, pair, np.dtype(dtype)) for name, pair in pairs.items()}
        for parent, pairs in shapes["layers"].items()
    }
    if extra := set(file.shapes) - _names(config, targets):
        raise ValueError(f"{directory / _WEIGHTS} has unexpected {min(extra)}: it was trained on another model")
    root = math.sqrt(settings["r"]) if settings.get("use_rslora") else settings["r"]
    return {"layers": layers}, settings["lora_alpha"] / root


def _read_pair(file: SafeFile, name: str, pair: Any, dtype: np.dtype) -> dict[str, jax.Array]:
    leaves = {}
    for key, letter in (("a", "A"), ("b", "B")):
        layers, inputs, outputs = pair[key].shape
        rows = []
        for layer in range(layers):
            tensor = _tensor_name(layer, name, letter)
            if file.shapes.get(tensor) != (outputs, inputs):
                raise ValueError(f"{tensor} has shape {file.shapes.get(tensor)}, the model asks {(outputs, inputs)}")
            rows.append(file.read(tensor, (slice(None), slice(None))).T.astype(dtype))
        leaves[key] = jnp.asarray(np.stack(rows))
    return leaves


def _names(config: LlamaConfig, targets: list[str]) -> set[str]:
    layers = range(config.num_hidden_layers)
    return {_tensor_name(layer, name, letter) for layer in layers for name in targets for letter in "AB"}


def _tensor_name(layer: int, name: str, letter: str) -> str:
    return f"base_model.model.model.layers.{layer}.{lora.PARENT[name]}.{name}.lora_{letter}.weight"
