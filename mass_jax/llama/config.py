"""What a Llama-family `config.json` can say, and how this implementation should execute it."""

import dataclasses
import pathlib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from mass_jax.errors import UserError
from mass_jax.llama import jsonfile, values
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
        _check_sizes(self)
        # 0 stands for "not given": as many key-value heads as query heads, heads that split the width evenly.
        given = self.head_dim
        object.__setattr__(self, "num_key_value_heads", self.num_key_value_heads or self.num_attention_heads)
        object.__setattr__(self, "head_dim", self.head_dim or self.hidden_size // self.num_attention_heads)
        _check_heads(self, even=not given)
        _check(self)

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that end a text, from `eos_token_id`."""
        eos = self.eos_token_id
        return () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)

    @classmethod
    def from_directory(cls, path: str | pathlib.Path) -> "LlamaConfig":
        """Reads the config.json of a model directory, and the end tokens of its generation_config.json.

        Args:
          path: the directory.

        Returns:
          The configuration; `eos_token_id` has the end tokens of both files.

        Raises:
          FileNotFoundError: there is no config.json.
          UserError: a file is not a JSON object, or a setting is missing, mistyped or not supported; it is named.
        """
        file, generation = pathlib.Path(path) / "config.json", pathlib.Path(path) / "generation_config.json"
        settings = jsonfile.read(file)
        try:
            for name in _SIZES:
                if settings.get(name) is None:
                    raise UserError(f"{name} is missing: add it, as an integer of at least 1")
            config = cls.from_dict(settings)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        if not generation.is_file():
            return config
        settings = jsonfile.read(generation)
        try:
            return config.with_stop_tokens(_read_eos(settings, config.vocab_size))
        except UserError as error:
            raise UserError(f"{generation}: {error}") from None

    def with_stop_tokens(self, tokens: Iterable[int]) -> "LlamaConfig":
        """The configuration with further end tokens.

        >>> LlamaConfig(eos_token_id=2).with_stop_tokens([7, 2]).stop_tokens
        (2, 7)
        """
        stops = tuple(dict.fromkeys((*self.stop_tokens, *tokens)))
        return self if stops == self.stop_tokens else dataclasses.replace(self, eos_token_id=stops)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "LlamaConfig":
        """Reads a parsed config.json of any transformers version.

        Args:
          settings: the parsed file; what it leaves out has the defaults of `LlamaConfig`.

        Returns:
          The configuration.

        Raises:
          UserError: a setting is mistyped, unknown or not supported; it is named.

        >>> LlamaConfig.from_dict({"model_type": "llama", "rope_theta": 500000.0}).rope
        Rope(rope_type='default', rope_theta=500000.0, factor=None, ...)
        """
        if settings.get("model_type", "llama") != "llama":
            raise UserError(f"model_type {settings['model_type']!r} is not Llama: only 'llama' checkpoints load")
        known = {field.name for field in dataclasses.fields(cls)} - set(_EXECUTION) - {"rope"}
        _refuse_unknown(settings, known)
        read = {key: settings[key] for key in known if settings.get(key) is not None}
        for key, value in read.items():
            if key in _KINDS:
                values.check(key, value, _KINDS[key])
        vocabulary = read.get("vocab_size", cls.vocab_size)
        for key in ("bos_token_id", "pad_token_id"):
            if key in settings:
                read[key] = _read_token(key, settings[key], vocabulary)
        if "eos_token_id" in settings:
            stops = _read_eos(settings, vocabulary)
            read["eos_token_id"] = stops or None if isinstance(settings["eos_token_id"], list) else (*stops, None)[0]
        config = cls(**read, rope=_read_rope(settings))
        _check_heads(config, even=True)  # as transformers does, even where head_dim is given
        return config

    def to_dict(self) -> dict[str, Any]:
        """The settings as Hugging Face's config.json, with RoPE in its new and its old spelling."""
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
_COUNTS = (*_SIZES, "num_key_value_heads", "head_dim", "max_position_embeddings")
_SWITCHES = ("tie_word_embeddings", "attention_bias", "mlp_bias")
_EXECUTION = ("dtype", "remat", "attention", "attention_block", "loss_chunk", "unroll")
# Settings of other architectures, with the only value under which they mean Llama.
_MUST_BE = {"attention_dropout": 0.0, "rope_interleaved": False}
_ROPE = ("rope_theta", "rope_scaling", "rope_parameters")


_KINDS = {
    **dict.fromkeys(_COUNTS, values.COUNT),
    **dict.fromkeys(_SWITCHES, values.SWITCH),
    "rms_norm_eps": values.POSITIVE,
    "initializer_range": values.NOT_NEGATIVE,
}
_ROPE_KINDS = {
    "rope_type": values.NAME,
    "type": values.NAME,
    "original_max_position_embeddings": values.COUNT,
    "truncate": values.SWITCH,
    "mscale": values.NOT_NEGATIVE,
    "mscale_all_dim": values.NOT_NEGATIVE,
}


def _read_eos(settings: Mapping[str, Any], vocabulary: int) -> tuple[int, ...]:
    """Ids of the end tokens of a config.json or a generation_config.json: one, several or none."""
    said = settings.get("eos_token_id")
    tokens = [_read_token("eos_token_id", one, vocabulary) for one in (said if isinstance(said, list) else [said])]
    return tuple(dict.fromkeys(token for token in tokens if token is not None))


def _read_token(key: str, value: Any, vocabulary: int) -> int | None:
    """A token id, or None where there is none, which old files write as -1."""
    if value is None or (type(value) is int and value == -1):
        return None
    return values.check(key, value, values.token(vocabulary))


def _refuse_unknown(settings: Mapping[str, Any], known: set[str]) -> None:
    for key, value in settings.items():
        off = value is None or value is False or value in ([], {}, "")
        if off or key in known or key in _INERT or key in _ROPE or key.startswith("_"):
            continue
        if key not in _MUST_BE:
            raise UserError(
                f"config.json sets {key!r} to {reprlib.repr(value)}, which is not a Llama setting: remove it"
            )
        if value != _MUST_BE[key]:
            raise UserError(f"{key} is {reprlib.repr(value)}, which is not supported: only {_MUST_BE[key]!r} is")


def _read_rope(settings: Mapping[str, Any]) -> Rope:
    """RoPE in either spelling: `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (before)."""
    theta = settings.get("rope_theta")
    new, old = settings.get("rope_parameters"), settings.get("rope_scaling")
    for key, table in (("rope_parameters", new), ("rope_scaling", old)):
        if table is not None and not isinstance(table, dict):
            raise UserError(f"{key} is {reprlib.repr(table)}: give an object, or null")
        for name, value in (table or {}).items():
            if value is not None:
                values.check(f"{name} in {key}", value, _ROPE_KINDS.get(name, values.POSITIVE))
    merged = dict(new or old or {})
    if theta is None and merged.get("rope_theta") is None and "rope_theta" in {**settings, **merged}:
        raise UserError("rope_theta is null: give a number such as 10000.0, or remove it")
    if theta is not None:
        values.check("rope_theta", theta, values.POSITIVE)
        if merged.get("rope_theta") is None:
            merged["rope_theta"] = theta
        if merged["rope_theta"] != theta:
            raise UserError(f"rope_theta is {theta} but rope_parameters say {merged['rope_theta']}: keep one of them")
    try:
        rope = Rope.from_dict(merged)
        contradicts = new and old and Rope.from_dict({**old, "rope_theta": rope.rope_theta}) != rope
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from None
    if contradicts:
        raise UserError(f"rope_parameters {new} contradict rope_scaling {old}: keep one of them")
    return rope


def _check_sizes(config: LlamaConfig) -> None:
    for name in _SIZES:
        if getattr(config, name) < 1:
            raise UserError(f"{name} is {getattr(config, name)}: it must be at least 1")


def _check_heads(config: LlamaConfig, even: bool) -> None:
    width, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    if groups < 1 or heads % groups:
        raise UserError(f"num_key_value_heads {groups} does not divide num_attention_heads {heads}: it must")
    if even and width % heads:
        raise UserError(f"hidden_size {width} is not a multiple of num_attention_heads {heads}: correct one of them")
    if config.head_dim < 1 or config.head_dim % 2:
        raise UserError(f"head_dim {config.head_dim} is odd or below 2, but RoPE rotates pairs: make it even")


def _check(config: LlamaConfig) -> None:
    if config.hidden_act != "silu":
        raise UserError(f"hidden_act {config.hidden_act!r} is not supported: Llama uses 'silu'")
    for name, allowed in (("remat", _REMAT), ("attention", _ATTENTION)):
        if getattr(config, name) not in allowed:
            raise UserError(f"{name} {getattr(config, name)!r} is unknown: use one of {', '.join(allowed)}")
    for name, least in (("loss_chunk", 0), ("attention_block", 1), ("unroll", 1)):
        if getattr(config, name) < least:
            raise UserError(f"{name} is {getattr(config, name)}: it must be at least {least}")
