"""Reading and writing of parameters in Hugging Face model directories, without torch."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from mass_jax.errors import UserError
from mass_jax.llama import families, jsonfile
from mass_jax.llama.config import LlamaConfig
from mass_jax.llama.names import Entry, entries
from mass_jax.llama.safefile import SafeFile
from mass_jax.types import Params, PyTree

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_BLOCK = 1024  # rows compared at a time


def load(
    path: str | pathlib.Path,
    config: LlamaConfig,
    dtype: jax.typing.DTypeLike = jnp.float32,
    shardings: PyTree | None = None,
) -> dict[str, Any]:
    """Reads the parameters of a model directory.

    Args:
        path: directory with model.safetensors, or with shards and their model.safetensors.index.json.
        config: its configuration (`LlamaConfig.from_directory(path)`).
        dtype: dtype of the parameters.
        shardings: a tree of shardings, structured like the parameters; each process then reads only the slices of its
            devices. None places all parameters on one device.

    Returns:
        The "params" collection of `Llama`, with blocks stacked [L, ...].

    Raises:
        FileNotFoundError: a weights file is missing.
        UserError: the files are damaged, or contradict the configuration: tensors are missing, unexpected or have
            another shape, or the output head differs from the embeddings that it is tied to. The message names the
            tensor.
    """
    found = {name: file for file in _open(pathlib.Path(path)) for name in file.shapes}
    wanted = list(entries(config))
    _check(wanted, found, config)
    leaves: dict[tuple[str, ...], list[Entry]] = {}
    for entry in wanted:
        leaves.setdefault(entry.path, []).append(entry)
    placed = flax.traverse_util.flatten_dict(shardings) if shardings is not None else {}
    # Largest first: each leaf is briefly on both the host and its device, and the last ones should be small.
    order = sorted(leaves, key=lambda key: len(leaves[key]) * math.prod(leaves[key][0].shape), reverse=True)
    flat = {key: _leaf(leaves[key], found, np.dtype(dtype), placed.get(key)) for key in order}
    return flax.traverse_util.unflatten_dict(flat)


def _open(directory: pathlib.Path) -> list[SafeFile]:
    index, names = directory / _INDEX, [_SINGLE]
    if index.is_file() and not (directory / _SINGLE).is_file():  # `transformers` prefers the single file too
        shards = jsonfile.read(index).get("weight_map")
        if not isinstance(shards, dict) or not all(_is_file_name(name) for name in shards.values()):
            raise UserError(f"{index} has no 'weight_map' of tensors to files in its directory: download it again")
        names = sorted(set(shards.values()))
    for name in names:
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory / name} does not exist: give a directory with safetensors weights")
    return [SafeFile(directory / name) for name in names]


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", "..") and pathlib.PurePath(name).name == name


def _check(wanted: list[Entry], found: Mapping[str, SafeFile], config: LlamaConfig) -> None:
    names = {entry.name for entry in wanted}
    # Some files contain a copy of a tied head, or old rotary buffers.
    spare = {_HEAD} if config.tie_word_embeddings else set()
    missing = [entry.name for entry in wanted if entry.name not in found]
    extra = sorted(name for name in set(found) - names - spare if not name.endswith("rotary_emb.inv_freq"))
    for kind, list_ in (("has unexpected", extra), ("lacks", missing)):
        if list_:
            more = f" and {len(list_) - 3} more" if len(list_) > 3 else ""
            raise UserError(f"the checkpoint {kind} {', '.join(list_[:3])}{more}: {_advice(list_[0], config)}")
    for entry in wanted:
        shape = found[entry.name].shapes[entry.name]
        if shape != entry.shape:
            raise UserError(f"{entry.name} has shape {shape}, config.json requires {entry.shape}: check config.json")
    if config.tie_word_embeddings and _HEAD in found and not _same(found, _HEAD, _EMBEDDING):
        raise UserError(f"{_HEAD} differs from {_EMBEDDING}: set tie_word_embeddings to false in config.json")


def _advice(name: str, config: LlamaConfig) -> str:
    """Returns the fix for a missing or unexpected tensor: the setting of config.json that determines it."""
    parts = name.split(".")
    if name == _HEAD:
        return _flip("tie_word_embeddings", config)
    if name.startswith("model.layers.") and parts[2].isdecimal() and int(parts[2][:9]) >= config.num_hidden_layers:
        return f"num_hidden_layers is {config.num_hidden_layers} in config.json, raise it"
    bias = {"self_attn": "attention_bias", "mlp": "mlp_bias"}.get(parts[-3] if parts[-1] == "bias" else "")
    if bias in families.of(config.model_type).settings:
        return _flip(bias, config)
    return "check that config.json belongs to these weights"


def _flip(key: str, config: LlamaConfig) -> str:
    """Returns the advice to invert a boolean setting."""
    value = getattr(config, key)
    return f"{key} is {json.dumps(value)} in config.json, set it to {json.dumps(not value)}"


def _same(found: Mapping[str, SafeFile], one: str, other: str) -> bool:
    """Returns whether two matrices are equal, comparing a block of rows at a time."""
    shape = found[one].shapes[one]
    if shape != found[other].shapes[other]:
        return False
    for start in range(0, shape[0], _BLOCK):
        index = (slice(start, start + _BLOCK), slice(None))
        first, second = (found[name].read(name, index).astype(np.float64) for name in (one, other))
        if not np.array_equal(first, second, equal_nan=True):
            return False
    return True


def _leaf(group: list[Entry], found: Mapping[str, SafeFile], dtype: np.dtype, sharding: Any) -> jax.Array:
    """Builds one leaf; each device's slice is read separately."""
    first = group[0]
    shape = first.shape[::-1] if first.transposed else first.shape
    if first.layer is not None:
        shape = (len(group), *shape)

    def read(index: Any) -> np.ndarray:
        if first.layer is None:
            return _slice(first, found, index).astype(dtype, copy=False)
        out = np.empty([len(range(*s.indices(n))) for s, n in zip(index, shape, strict=True)], dtype)
        for row, entry in enumerate(group[index[0]]):
            out[row] = _slice(entry, found, index[1:])
        return out

    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    # Waits because a pending copy keeps the leaf on the host while the next one is read.
    return jax.block_until_ready(jax.make_array_from_callback(shape, sharding, read))


def _slice(entry: Entry, found: Mapping[str, SafeFile], index: tuple[slice, ...]) -> np.ndarray:
    stored = found[entry.name].read(entry.name, index[::-1] if entry.transposed else index)
    return stored.T if entry.transposed else stored


def save(path: str | pathlib.Path, params: Params, config: LlamaConfig) -> None:
    """Writes config.json and model.safetensors, which `transformers` loads.

    Shards in the directory are kept, but both libraries prefer the new file.

    Args:
        path: directory, created if it does not exist.
        params: the "params" collection of `Llama`.
        config: its configuration.
    """
    directory = pathlib.Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    flat = flax.traverse_util.flatten_dict(params)
    host: Callable[[Any], np.ndarray] = np.asarray
    flat = {key: host(leaf) for key, leaf in flat.items()}
    tensors = {}
    for entry in entries(config):
        value = flat[entry.path] if entry.layer is None else flat[entry.path][entry.layer]
        tensors[entry.name] = np.ascontiguousarray(value.T if entry.transposed else value)
    settings = {**config.to_dict(), "torch_dtype": str(next(iter(flat.values())).dtype)}
    safetensors.numpy.save_file(tensors, directory / _SINGLE, metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
