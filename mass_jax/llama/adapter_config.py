"""Parser for the adapter_config.json of a LoRA adapter.

Settings are checked against an allow-list. Any other setting must be off, so that a setting which a later version of
`peft` adds is refused by name until it is supported.
"""

import dataclasses
import math
import pathlib
import reprlib
from typing import Any

import re2

from mass_jax import projections as projection_table
from mass_jax.errors import UserError
from mass_jax.llama import jsonfile, lora, values
from mass_jax.llama.config import LlamaConfig

NAME = "adapter_config.json"

# Settings that `read` returns, with their own checks.
READ = frozenset({"r", "lora_alpha", "use_rslora", "target_modules"})
# Settings for training or bookkeeping, or of features that must be off anyway, and their types.
WITHOUT_EFFECT: dict[str, tuple[type, ...]] = {
    "auto_mapping": (dict,),
    "base_model_name_or_path": (str,),
    "eva_config": (dict,),
    "inference_mode": (bool,),
    "loftq_config": (dict,),
    "lora_dropout": (int, float),
    "megatron_core": (str,),
    "peft_version": (str,),
    "qalora_group_size": (int,),
    "revision": (str,),
}
# Settings with an effect, and their values in plain LoRA.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none",),
    # These change the initial A and B only; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA also change the base weights.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Settings of a plain LoRA adapter.

    Attributes:
        rank: R, at least 1.
        alpha: numerator of the factor on A B.
        rslora: whether the denominator is sqrt(rank) instead of rank.
        target_modules: module names or one pattern, interpreted as in `peft`.

    >>> AdapterConfig(rank=4, alpha=8.0, rslora=False, target_modules=("q_proj",)).factor
    2.0
    """

    rank: int
    alpha: float
    rslora: bool
    target_modules: tuple[str, ...] | str

    @property
    def factor(self) -> float:
        """Factor on A B: alpha / rank, or alpha / sqrt(rank) with rsLoRA."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def read(file: pathlib.Path) -> AdapterConfig:
    """Reads an adapter_config.json.

    Args:
        file: path of the file.

    Returns:
        The settings.

    Raises:
        FileNotFoundError: the file does not exist.
        UserError: a setting is missing, mistyped, or has an effect that is not supported; the message names it.
    """
    settings = jsonfile.read(file)
    if "peft_type" not in settings:
        raise UserError(f"{file}: 'peft_type' is missing: give a directory written by peft")
    try:
        for key, value in settings.items():
            if problem := _problem(key, value):
                raise UserError(f"{key!r} is {reprlib.repr(value)}: {problem}")
        return _read(settings)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _problem(key: str, value: Any) -> str:
    """Returns why a setting is refused, and the fix; "" if it is accepted."""
    if key in READ or (value is None and key in WITHOUT_EFFECT):
        return ""
    if key in WITHOUT_EFFECT:
        kinds = WITHOUT_EFFECT[key]
        return "" if isinstance(value, kinds) else f"give a {' or '.join(kind.__name__ for kind in kinds)}"
    if key in PLAIN:
        plain = any(value is one or (isinstance(one, str) and value == one) for one in PLAIN[key])
        allowed = ", ".join(map(repr, PLAIN[key]))
        return "" if plain else f"only {allowed} can be loaded; merge the adapter into its base model with peft"
    off = value is None or value is False or value in ([], {})
    return "" if off else "not supported; merge the adapter into its base model with peft"


def _read(settings: dict[str, Any]) -> AdapterConfig:
    def need(key: str, kind: values.Kind) -> Any:
        if key not in settings:
            raise UserError(f"{key!r} is missing: add {kind.expected}")
        return values.check(repr(key), settings[key], kind)

    rank = need("r", values.COUNT)
    alpha = need("lora_alpha", _NUMBER)
    targets = need("target_modules", _TARGETS)
    rslora = values.check("'use_rslora'", settings.get("use_rslora") or False, values.SWITCH)
    return AdapterConfig(rank, float(alpha), rslora, targets if isinstance(targets, str) else tuple(targets))


def _are_targets(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, list) and bool(names) and all(isinstance(name, str) and name for name in names)


_NUMBER = values.Kind(values.is_number, "a number")
_TARGETS = values.Kind(_are_targets, "names of projections, such as ['q_proj', 'v_proj']")


def projections(settings: AdapterConfig, config: LlamaConfig) -> list[str]:
    """Returns the names of the projections that an adapter modifies.

    Args:
        settings: the adapter's settings.
        config: configuration of the base model.

    Returns:
        A subset of `lora.TARGETS`, in that order.

    Raises:
        UserError: `target_modules` matches no module, a module other than a projection, or a projection in some layers
            only.

    >>> config = LlamaConfig(num_hidden_layers=2)
    >>> projections(AdapterConfig(4, 8.0, False, r".*\\.self_attn\\.[qv]_proj"), config)
    ['q_proj', 'v_proj']
    """
    given = reprlib.repr(settings.target_modules)
    matched = {name for name in _modules(config) if _matches(settings.target_modules, name)}
    found = []
    for name in lora.TARGETS:
        parent = projection_table.TABLE[name].parent
        paths = {f"model.layers.{i}.{parent}.{name}" for i in range(config.num_hidden_layers)}
        if matched >= paths:
            found.append(name)
            matched -= paths
        elif matched & paths:
            raise UserError(f"'target_modules' {given} matches {name} in some layers only: adapt it in all layers")
    if matched:
        raise UserError(
            f"'target_modules' {given} matches {min(matched)}: only {', '.join(lora.TARGETS)} are supported"
        )
    if not found:
        raise UserError(
            f"'target_modules' {given} matches no module of this model: use some of {', '.join(lora.TARGETS)}"
        )
    return found


def _modules(config: LlamaConfig) -> list[str]:
    """Returns the module names of the model in transformers."""
    layers = [f"model.layers.{i}" for i in range(config.num_hidden_layers)]
    inside = [f"{projection.parent}.{name}" for name, projection in projection_table.TABLE.items()]
    inside += ["self_attn", "mlp", "mlp.act_fn", "input_layernorm", "post_attention_layernorm"]
    inside += ["self_attn.q_norm", "self_attn.k_norm"] if config.qk_norm else []
    within = [f"{layer}.{name}" for layer in layers for name in inside]
    return [
        "model",
        "model.embed_tokens",
        "model.layers",
        "model.norm",
        "model.rotary_emb",
        "lm_head",
        *layers,
        *within,
    ]


def _matches(target: tuple[str, ...] | str, name: str) -> bool:
    """Returns whether `peft` adapts a module: a list has names or suffixes, a string is a pattern of the full name."""
    if isinstance(target, tuple):
        return any(name == end or name.endswith(f".{end}") for end in target)
    if target.lower() == "all-linear":
        return name.endswith("_proj")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.fullmatch(target, name, options) is not None
    except re2.error:
        raise UserError(f"'target_modules' {target!r} is not an RE2 pattern: list the projections instead") from None
