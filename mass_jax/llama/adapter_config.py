"""The adapter_config.json of a LoRA adapter: settings with an effect here, settings without one, and all others.

The settings are an allow-list. A setting that is on neither list must be off, so that what a later version of `peft`
adds is refused by name until it is supported.
"""

import dataclasses
import math
import pathlib
import reprlib
from typing import Any

import re2

from mass_jax.errors import UserError
from mass_jax.llama import jsonfile, lora, values
from mass_jax.llama.config import LlamaConfig

NAME = "adapter_config.json"

# Settings that `read` returns or checks by itself.
READ = frozenset({"r", "lora_alpha", "use_rslora", "target_modules"})
# Settings of training, bookkeeping, and of features that must be off anyway; with their types.
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
# Settings with an effect, and the values that leave plain LoRA.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none",),
    # PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change the base weights too. These change the first A and B only.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Settings of a plain LoRA adapter.

    Attributes:
      rank: R, at least 1.
      alpha: numerator of the factor on A B.
      rslora: whether the denominator is sqrt(rank) and not rank.
      target_modules: names of modules, or one pattern, as `peft` reads them.

    >>> AdapterConfig(rank=4, alpha=8.0, rslora=False, target_modules=("q_proj",)).factor
    2.0
    """

    rank: int
    alpha: float
    rslora: bool
    target_modules: tuple[str, ...] | str

    @property
    def factor(self) -> float:
        """The factor on A B: alpha / rank, or alpha / sqrt(rank)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def read(file: pathlib.Path) -> AdapterConfig:
    """Reads an adapter_config.json.

    Args:
      file: path of the file.

    Returns:
      The settings.

    Raises:
      FileNotFoundError: the file does not exist.
      UserError: a setting is missing, of the wrong type, or has an effect that is not supported; it is named.
    """
    settings = jsonfile.read(file)
    if "peft_type" not in settings:
        raise UserError(f"{file}: 'peft_type' is missing: give a directory that peft wrote")
    try:
        for key, value in settings.items():
            if problem := _problem(key, value):
                raise UserError(f"{key!r} is {reprlib.repr(value)}: {problem}")
        return _read(settings)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _problem(key: str, value: Any) -> str:
    """Why a setting is refused, with the fix; "" if it is not."""
    if key in READ or (value is None and key in WITHOUT_EFFECT):
        return ""
    if key in WITHOUT_EFFECT:
        kinds = WITHOUT_EFFECT[key]
        return "" if isinstance(value, kinds) else f"give a {' or '.join(kind.__name__ for kind in kinds)}"
    if key in PLAIN:
        plain = any(value is one or (isinstance(one, str) and value == one) for one in PLAIN[key])
        allowed = ", ".join(map(repr, PLAIN[key]))
        return "" if plain else f"only {allowed} can be read; merge the adapter into its base model with peft"
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
_TARGETS = values.Kind(_are_targets, "the names of the adapted projections, such as ['q_proj', 'v_proj']")


def projections(settings: AdapterConfig, config: LlamaConfig) -> list[str]:
    """Names of the projections that an adapter acts on.

    Args:
      settings: of the adapter.
      config: of the base model.

    Returns:
      Names of `lora.TARGETS`, in their order.

    Raises:
      UserError: `target_modules` matches nothing, another module, or a projection in some layers only.

    >>> config = LlamaConfig(num_hidden_layers=2)
    >>> projections(AdapterConfig(4, 8.0, False, r".*\\.self_attn\\.[qv]_proj"), config)
    ['q_proj', 'v_proj']
    """
    said = reprlib.repr(settings.target_modules)
    matched = {name for name in _modules(config) if _matches(settings.target_modules, name)}
    found = []
    for name in lora.TARGETS:
        paths = {f"model.layers.{i}.{lora.PARENT[name]}.{name}" for i in range(config.num_hidden_layers)}
        if matched >= paths:
            found.append(name)
            matched -= paths
        elif matched & paths:
            raise UserError(f"'target_modules' {said} adapts {name} in some layers only: all layers must have it")
    if matched:
        raise UserError(f"'target_modules' {said} adapts {min(matched)}: only {', '.join(lora.TARGETS)} load")
    if not found:
        raise UserError(
            f"'target_modules' {said} matches no module of this model: use some of {', '.join(lora.TARGETS)}"
        )
    return found


def _modules(config: LlamaConfig) -> list[str]:
    """Names of the modules of transformers' `LlamaForCausalLM`."""
    layers = [f"model.layers.{i}" for i in range(config.num_hidden_layers)]
    inside = [f"{parent}.{name}" for name, parent in lora.PARENT.items()]
    inside += ["self_attn", "mlp", "mlp.act_fn", "input_layernorm", "post_attention_layernorm"]
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
    """Whether `peft` adapts a module: a list has names or their ends, a string is a pattern for the whole name."""
    if isinstance(target, tuple):
        return any(name == end or name.endswith(f".{end}") for end in target)
    if target.lower() == "all-linear":
        return name.endswith("_proj")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.fullmatch(target, name, options) is not None
    except re2.error:
        raise UserError(f"'target_modules' {target!r} is not a pattern of RE2: list the projections instead") from None
