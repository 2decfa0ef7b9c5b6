"""Model families: the architectures that load, with their settings and defaults in transformers.

All of them are Llamas with up to three changes: biases on the query, key and value projections (Qwen2), RMSNorm on each
query and key head (Qwen3), and layers without RoPE (SmolLM3). Mistral is a Llama whose queries see a window of keys
only; texts within the window do not notice.
"""

import itertools
import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mass_jax.errors import UserError
from mass_jax.llama import values

_FULL, _SLIDING = "full_attention", "sliding_attention"
_LAYER_TYPES = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")


class Family(NamedTuple):
    """One `model_type` of config.json.

    Attributes:
        architecture: class of the model in transformers.
        settings: settings that config.json may have in addition to those of every family.
        defaults: values of missing settings where they differ from those of `LlamaConfig`.
        default_theta: base of RoPE's wavelengths if config.json has none.
        qkv_bias: whether the query, key and value projections have a bias.
        qk_norm: whether each head of the queries and keys is normalized.
    """

    architecture: str
    settings: tuple[str, ...]
    defaults: Mapping[str, Any]
    default_theta: float = 10000.0
    qkv_bias: bool = False
    qk_norm: bool = False


_QWEN: dict[str, Any] = {
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "bos_token_id": None,
    "eos_token_id": None,
}

FAMILIES = {
    "llama": Family("LlamaForCausalLM", ("attention_bias", "mlp_bias"), {}),
    "mistral": Family(
        "MistralForCausalLM",
        ("sliding_window",),
        {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    ),
    "qwen2": Family("Qwen2ForCausalLM", _LAYER_TYPES, _QWEN, qkv_bias=True),
    "qwen3": Family("Qwen3ForCausalLM", ("attention_bias", *_LAYER_TYPES), _QWEN | {"head_dim": 128}, qk_norm=True),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        ("attention_bias", "mlp_bias", "no_rope_layers", "no_rope_layer_interval", *_LAYER_TYPES),
        {
            "max_position_embeddings": 32768,
            "num_key_value_heads": 4,
            "tie_word_embeddings": True,
            "no_rope_layer_interval": 4,
            "bos_token_id": 128000,
            "eos_token_id": 128001,
            "pad_token_id": 128004,
        },
        default_theta=2000000.0,
    ),
}


def of(model_type: Any) -> Family:
    """Returns the family of a `model_type`.

    Raises:
        UserError: the type is not supported; the message lists those that are.

    >>> of("qwen2").architecture
    'Qwen2ForCausalLM'
    """
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(
            f"model_type {reprlib.repr(model_type)} is not supported: use a model of type {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def layouts(family: Family, settings: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Reads the settings of a parsed config.json that are particular to families: RoPE and attention of each layer.

    Args:
        family: the model's family.
        settings: the parsed file, with the family's defaults for missing settings.
        layers: number of layers, L.

    Returns:
        Arguments of `LlamaConfig`: "qkv_bias", "qk_norm", and where they differ from its defaults "no_rope_layers",
        "sliding_window" and "layer_types".

    Raises:
        UserError: a setting is mistyped or contradicts another one; the message names it.

    >>> layouts(of("smollm3"), {"no_rope_layer_interval": 2}, 4)["no_rope_layers"]
    (1, 0, 1, 0)
    """
    found: dict[str, Any] = {"qkv_bias": family.qkv_bias, "qk_norm": family.qk_norm}
    if "no_rope_layers" in family.settings:
        found["no_rope_layers"] = _rope_layers(settings, layers)
    window = settings.get("sliding_window")
    if "sliding_window" in family.settings and window is not None:
        values.check("sliding_window", window, values.COUNT)
        if "use_sliding_window" not in family.settings:
            found["sliding_window"] = window
    if "use_sliding_window" in family.settings:
        found |= _window(settings, found.get("no_rope_layers"), layers)
    return found


def _rope_layers(settings: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """Returns 1 for each layer with RoPE and 0 for each without, from a list or an interval."""
    if (listed := settings.get("no_rope_layers")) is not None:
        return _per_layer("no_rope_layers", listed, layers, (0, 1))
    interval = values.check("no_rope_layer_interval", settings.get("no_rope_layer_interval"), values.COUNT)
    return tuple(int((i + 1) % interval != 0) for i in range(layers))


def _window(settings: Mapping[str, Any], rope_layers: tuple[int, ...] | None, layers: int) -> dict[str, Any]:
    """Returns the sliding window and the layers that have it; nothing if no layer has."""
    used = settings.get("use_sliding_window")
    if used is not None:
        values.check("use_sliding_window", used, values.SWITCH)
    first = settings.get("max_window_layers")
    if first is not None:
        values.check("max_window_layers", first, values.NATURAL)
    if (listed := settings.get("layer_types")) is not None:
        types = _per_layer("layer_types", listed, layers, (_FULL, _SLIDING))
    elif rope_layers is not None:
        types = tuple(_FULL if rope else _SLIDING for rope in rope_layers)
    else:
        types = tuple(_FULL if i < (first or 0) else _SLIDING for i in range(layers))
    window = settings.get("sliding_window")
    if not used or window is None:
        if listed is not None and _SLIDING in types:
            raise UserError(f"layer_types has {_SLIDING!r}, but the sliding window is off: set use_sliding_window")
        return {}
    return {"sliding_window": window, "layer_types": types}


def _per_layer(key: str, listed: Any, layers: int, allowed: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns a setting with one value for each layer; a list may have further ones, as in transformers."""
    if not isinstance(listed, list) or len(listed) < layers:
        raise UserError(f"{key} is {reprlib.repr(listed)}: give a list of {layers} values, one for each layer")
    for value in listed[:layers]:
        if type(value) is not type(allowed[0]) or value not in allowed:
            raise UserError(f"{key} has {reprlib.repr(value)}: use {' or '.join(map(repr, allowed))}")
    return tuple(listed[:layers])


def fitted(each: tuple[Any, ...], layers: int, plain: Any) -> tuple[Any, ...]:
    """Repeats or truncates a setting with one value per layer to the number of layers; empty if all are plain.

    >>> fitted((1, 0), 3, plain=1), fitted((1, 0), 1, plain=1)
    ((1, 0, 1), ())
    """
    every = tuple(itertools.islice(itertools.cycle(each), layers))
    return () if set(every) == {plain} else every


def check(model_type: str, given: Mapping[str, Any]) -> None:
    """Checks that a family has the changes that a configuration makes to the Llama architecture.

    Args:
        model_type: the family.
        given: values of "qkv_bias", "qk_norm", "attention_bias", "mlp_bias", "no_rope_layers" and "sliding_window".

    Raises:
        UserError: it does not, so that no config.json could describe the model; the message names the setting.
    """
    family = of(model_type)
    for name in ("qkv_bias", "qk_norm"):
        if given[name] != getattr(family, name):
            raise UserError(f"{name} is {given[name]}, but {getattr(family, name)} in {model_type!r} models: change it")
    for name in ("attention_bias", "mlp_bias", "no_rope_layers", "sliding_window"):
        if given[name] and name not in family.settings:
            raise UserError(f"{name} is {given[name]}, which is not a setting of {model_type!r} models: remove it")


def written(
    model_type: str, rope_layers: tuple[bool, ...], window: int | None, layer_types: tuple[str, ...]
) -> dict[str, Any]:
    """Returns the settings of config.json that `layouts` reads.

    Args:
        model_type: the family.
        rope_layers: whether each layer has RoPE.
        window: the sliding window, or None.
        layer_types: attention of each layer; empty if all are equal.

    >>> written("mistral", (True, True), 4096, ())
    {'sliding_window': 4096}
    """
    settings: dict[str, Any] = {}
    known = of(model_type).settings
    if "no_rope_layers" in known:
        settings["no_rope_layers"] = [int(rope) for rope in rope_layers]
    if "sliding_window" in known:
        settings["sliding_window"] = window
    if "use_sliding_window" in known:
        settings["use_sliding_window"] = window is not None
    if layer_types:
        settings["layer_types"] = list(layer_types)
    return settings
