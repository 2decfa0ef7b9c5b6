"""What a Llama-family `config.json` can say, and how this implementation should execute it."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from mass_jax.llama.rope import Rope

_REMAT = ("none", "dots", "block")
_ATTENTION = ("xla", "blockwise")

# Settings of the file that say nothing about the mathematics.
_INERT = frozenset(
    {
        "architectures", "auto_map", "chunk_size_feed_forward", "dtype", "id2label", "is_decoder", "is_encoder_decoder",
        "is_llama_config", "label2id", "model_type", "name_or_path", "output_attentions", "output_hidden_states",
        "pretraining_tp", "problem_type", "return_dict", "tokenizer_class", "torch_dtype", "transformers.js_config",
        "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
    }
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Architecture under Hugging Face's names, then execution settings; hashable, so it may be a static argument.

    Execution settings are ours and never written to config.json; set them with `dataclasses.replace`.

    Attributes:
      dtype: dtype of the activations, such as "bfloat16"; None follows the parameters.
      remat: what the backward pass recomputes: "none", "dots" (all but products with weights: a third of the memory,
        and less time where memory is what a gradient waits for), "block" (all but block inputs).
      attention: "xla" (scores of all pairs at once) or "blockwise" (memory linear in the length).
      attention_block: queries and keys a block of blockwise attention holds.
      loss_chunk: positions of each row whose logits are held at a time by the cross-entropy; 0 holds all.
      unroll: layers per step of the scan over layers; compile time against the cost of a loop.

    >>> config = LlamaConfig(vocab_size=220, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
    ...                      num_key_value_heads=2, intermediate_size=128)
    >>> config.head_dim, dataclasses.replace(config, remat="block").remat
    (16, 'block')
    """

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 0
    head_dim: int = 0
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    rope: Rope = dataclasses.field(default_factory=Rope)
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    bos_token_id: int | None = 1
    eos_token_id: int | tuple[int, ...] | None = 2
    pad_token_id: int | None = None

    dtype: str | None = None
    remat: str = "dots"
    attention: str = "xla"
    attention_block: int = 512
    loss_chunk: int = 0
    unroll: int = 1

    def __post_init__(self):
        # 0 is "not said": as many key-value heads as query heads, heads that split the width evenly.
        object.__setattr__(self, "num_key_value_heads", self.num_key_value_heads or self.num_attention_heads)
        object.__setattr__(self, "head_dim", self.head_dim or self.hidden_size // self.num_attention_heads)
        _check(self)

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Tokens that end a text, from `eos_token_id`."""
        eos = self.eos_token_id
        return () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)

    @classmethod
    def from_directory(cls, path: str | pathlib.Path) -> "LlamaConfig":
        """Reads `path/config.json`."""
        file = pathlib.Path(path) / "config.json"
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist: give a Hugging Face model directory")
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{file} is not JSON ({error}): download it again") from None
        if not isinstance(settings, dict):
            raise ValueError(f"{file} holds no JSON object: download it again")
        return cls.from_dict(settings)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "LlamaConfig":
        """Reads a parsed config.json of any transformers version; a setting it cannot honour raises and is named.

        >>> LlamaConfig.from_dict({"model_type": "llama", "rope_theta": 500000.0}).rope
        Rope(rope_type='default', rope_theta=500000.0, factor=None, ...)
        """
        if settings.get("model_type", "llama") != "llama":
            raise ValueError(f"model_type {settings['model_type']!r} is not Llama: only 'llama' checkpoints load")
        known = {field.name for field in dataclasses.fields(cls)} - set(_EXECUTION) - {"rope"}
        _refuse_unknown(settings, known)
        read = {key: settings[key] for key in known if settings.get(key) is not None}
        for key in (*_SIZES, "num_key_value_heads", "head_dim"):
            if not isinstance(read.get(key, 1), int):
                raise ValueError(f"config.json sets {key!r} to {read[key]!r}: it must be an integer")
        read |= {key: None for key in ("bos_token_id", "eos_token_id") if key in settings and settings[key] is None}
        if isinstance(read.get("eos_token_id"), list):
            read["eos_token_id"] = tuple(read["eos_token_id"])
        return cls(**read, rope=_read_rope(settings))

    def to_dict(self) -> dict[str, Any]:
        """The settings as Hugging Face's config.json, RoPE in both spellings so that old readers are right too."""
        skipped = (*_EXECUTION, "rope")
        said = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        said = {key: value for key, value in said.items() if key not in skipped}
        if isinstance(self.eos_token_id, tuple):
            said["eos_token_id"] = list(self.eos_token_id)
        rope = self.rope.to_dict()
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **said,
            "rope_parameters": rope,
            "rope_theta": self.rope.rope_theta,
            "rope_scaling": None if self.rope.rope_type == "default" else scaling,
        }


_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_EXECUTION = ("dtype", "remat", "attention", "attention_block", "loss_chunk", "unroll")
# Settings of other architectures, with the only value under which they mean Llama.
_MUST_BE = {"attention_dropout": 0.0, "rope_interleaved": False}
_ROPE = ("rope_theta", "rope_scaling", "rope_parameters")


def _refuse_unknown(settings: Mapping[str, Any], known: set[str]) -> None:
    for key, value in settings.items():
        if value in (None, False, [], {}, "") or key in known or key in _INERT or key in _ROPE or key.startswith("_"):
            continue  # a key that is off changes nothing, whatever it means
        if key in _MUST_BE and value != _MUST_BE[key]:
            raise ValueError(f"{key} is {value!r}, which is not supported: only {_MUST_BE[key]!r} is")
        if key not in _MUST_BE:
            raise ValueError(f"config.json sets {key!r} to {value!r}, which this Llama does not know: remove it")


def _read_rope(settings: Mapping[str, Any]) -> Rope:
    """RoPE in either spelling: `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (before)."""
    new, old = settings.get("rope_parameters"), settings.get("rope_scaling")
    theta = settings.get("rope_theta")
    merged = dict(new or old or {})
    if theta is not None and merged.setdefault("rope_theta", theta) != theta:
        raise ValueError(f"rope_theta is {theta} but rope_parameters say {merged['rope_theta']}: keep one of them")
    rope = Rope.from_dict(merged)
    if new and old and Rope.from_dict({**old, "rope_theta": rope.rope_theta}) != rope:
        raise ValueError(f"rope_parameters {new} contradict rope_scaling {old}: keep one of them")
    return rope


def _check(config: LlamaConfig) -> None:
    for name in _SIZES:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}: it must be at least 1")
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    if heads % groups:
        raise ValueError(f"num_key_value_heads {groups} does not divide num_attention_heads {heads}: it must")
    if config.head_dim % 2:
        raise ValueError(f"head_dim {config.head_dim} is odd, but RoPE rotates pairs of features: make it even")
    if config.hidden_act != "silu":
        raise ValueError(f"hidden_act {config.hidden_act!r} is not supported: Llama uses 'silu'")
    for name, allowed in (("remat", _REMAT), ("attention", _ATTENTION)):
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name} {getattr(config, name)!r} is unknown: use one of {', '.join(allowed)}")
    for name, least in (("loss_chunk", 0), ("attention_block", 1), ("unroll", 1)):
        if getattr(config, name) < least:
            raise ValueError(f"{name} is {getattr(config, name)}: it must be at least {least}")
