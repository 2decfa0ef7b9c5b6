"""Configuration of a model: the architecture, as in config.json, and execution settings."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from mass_jax.errors import UserError
from mass_jax.llama import config_file, families, jsonfile, values
from mass_jax.llama.rope import Rope

_REMAT = ("none", "dots", "block")
_ATTENTION = ("xla", "blockwise", "auto", "kernel")


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Architecture under Hugging Face's names, and execution settings; hashable, so it can be a static argument.

    Execution settings are specific to this package and are not written to config.json; set them with
    `dataclasses.replace`.

    Attributes:
        vocab_size: vocabulary size.
        hidden_size: width of the residual stream.
        intermediate_size: inner features of the MLP.
        num_hidden_layers: blocks.
        num_attention_heads: query heads.
        num_key_value_heads: key-value heads; 0 is as many as query heads.
        head_dim: features per head; 0 divides the width evenly among the query heads.
        hidden_act: activation of the MLP; only "silu" is supported.
        max_position_embeddings: positions that the model was trained on.
        initializer_range: standard deviation of new parameters.
        rms_norm_eps: epsilon of the norms.
        rope: rotary position embedding.
        tie_word_embeddings: whether the output head is the embedding table.
        attention_bias: whether attention projections have a bias.
        mlp_bias: whether MLP projections have a bias.
        model_type: family of the model; see `mass_jax.llama.families`.
        qkv_bias: whether query, key and value projections have a bias, as in Qwen2.
        qk_norm: whether an RMSNorm is applied to each query and key head before RoPE, as in Qwen3.
        no_rope_layers: for each layer, 1 if it applies RoPE and 0 if not, as in SmolLM3; repeated for further layers.
            Empty if all layers apply RoPE.
        sliding_window: tokens that a query sees in layers with a sliding window, and so the length of the longest texts
            that the model accepts, with padding; None if there is no such layer.
        layer_types: for each layer, "full_attention" or "sliding_attention", repeated for further layers. Empty if all
            layers are alike.
        bos_token_id: token at the start of a text, or None.
        eos_token_id: tokens that end a text: one, several or None.
        pad_token_id: padding token, or None.
        dtype: dtype of the activations, such as "bfloat16"; None follows the parameters, or is float32 with
            `half_products`.
        half_products: whether products with weights and adapters round their operands to bfloat16, with sums in
            float32; see `half_product`.
        half_adapters: whether products with adapters have bfloat16 operands; for bfloat16 activations.
        remat: activations that the backward pass recomputes: "none", "dots" (all except products with weights; takes a
            third of the memory, and less time if the gradient is memory-bound) or "block" (all except block inputs).
        attention: "xla" (scores of all pairs at once), "blockwise" (memory linear in the length), "auto" (blockwise for
            long texts) or "kernel" (Pallas, for GPUs and TPUs; interpreted on CPUs); see `attention.self_attend`.
        attention_block: queries per block of blockwise attention.
        loss_chunk: positions of each row whose logits the cross-entropy holds at a time; 0 holds all.
        unroll: layers per iteration of the scan over layers; trades compile time for loop overhead.

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
    model_type: str = "llama"
    qkv_bias: bool = False
    qk_norm: bool = False
    no_rope_layers: tuple[int, ...] = ()
    sliding_window: int | None = None
    layer_types: tuple[str, ...] = ()
    bos_token_id: int | None = 1
    eos_token_id: int | tuple[int, ...] | None = 2
    pad_token_id: int | None = None

    dtype: str | None = None
    half_products: bool = False
    half_adapters: bool = False
    remat: str = "dots"
    attention: str = "xla"
    attention_block: int = 512
    loss_chunk: int = 0
    unroll: int = 1

    def __post_init__(self):
        _check_sizes(self)
        # 0 means not given: as many key-value heads as query heads, and heads that divide the width evenly.
        given = self.head_dim
        object.__setattr__(self, "num_key_value_heads", self.num_key_value_heads or self.num_attention_heads)
        object.__setattr__(self, "head_dim", self.head_dim or self.hidden_size // self.num_attention_heads)
        rope_layers = families.fitted(self.no_rope_layers, self.num_hidden_layers, plain=1)
        layer_types = families.fitted(self.layer_types, self.num_hidden_layers, plain="full_attention")
        window = self.sliding_window if layer_types or not self.layer_types else None  # None: only later layers have it
        object.__setattr__(self, "no_rope_layers", rope_layers)
        object.__setattr__(self, "layer_types", layer_types if window else ())
        object.__setattr__(self, "sliding_window", window)
        if self.half_products:
            object.__setattr__(self, "dtype", self.dtype or "float32")
        _check_heads(self, even=not given)
        _check(self)

    @property
    def rope_layers(self) -> tuple[bool, ...]:
        """Whether each layer applies RoPE, from `no_rope_layers`."""
        return tuple(map(bool, self.no_rope_layers)) or (True,) * self.num_hidden_layers

    def has_bias(self, projection: str) -> bool:
        """Returns whether a projection has a bias.

        >>> [LlamaConfig(model_type="qwen2", qkv_bias=True).has_bias(name) for name in ("v_proj", "o_proj")]
        [True, False]
        """
        if projection in ("gate_proj", "up_proj", "down_proj"):
            return self.mlp_bias
        return self.attention_bias or (self.qkv_bias and projection != "o_proj")

    def check_length(self, length: int) -> None:
        """Checks that texts of a length, with padding, fit the sliding window.

        Raises:
            UserError: they do not; the message names the window.
        """
        if self.sliding_window is not None and length > self.sliding_window:
            raise UserError(
                f"texts of {length} tokens (with padding) exceed the sliding window of {self.sliding_window} tokens of "
                f"this {self.model_type} model, beyond which it is not supported: shorten the texts"
            )

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Token ids that end a text, from `eos_token_id`."""
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
            FileNotFoundError: config.json does not exist.
            UserError: a file is not a JSON object, or a setting is missing, mistyped or not supported; the message
                names it.
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
            return config.with_stop_tokens(config_file.read_eos(settings, config.vocab_size))
        except UserError as error:
            raise UserError(f"{generation}: {error}") from None

    def with_stop_tokens(self, tokens: Iterable[int]) -> "LlamaConfig":
        """Returns the configuration with further end tokens.

        >>> LlamaConfig(eos_token_id=2).with_stop_tokens([7, 2]).stop_tokens
        (2, 7)
        """
        stops = tuple(dict.fromkeys((*self.stop_tokens, *tokens)))
        return self if stops == self.stop_tokens else dataclasses.replace(self, eos_token_id=stops)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "LlamaConfig":
        """Builds a configuration from a parsed config.json of any transformers version.

        Args:
            settings: the parsed file; missing settings take the defaults of its family in transformers.

        Returns:
            The configuration.

        Raises:
            UserError: a setting is mistyped, unknown or not supported; the message names it.

        >>> LlamaConfig.from_dict({"model_type": "llama", "rope_theta": 500000.0}).rope
        Rope(rope_type='default', rope_theta=500000.0, factor=None, ...)
        """
        model_type = settings.get("model_type", "llama")
        family = families.of(model_type)
        settings = {**family.defaults, **settings}
        config_file.refuse_unknown(settings, {*_COMMON, *family.settings}, model_type)
        read = {key: settings[key] for key in (*_COMMON, *_BIASES) if settings.get(key) is not None}
        for key, value in read.items():
            if key in _KINDS:
                values.check(key, value, _KINDS[key])
        vocabulary = read.get("vocab_size", cls.vocab_size)
        for key in ("bos_token_id", "pad_token_id"):
            if key in settings:
                read[key] = config_file.read_token(key, settings[key], vocabulary)
        if "eos_token_id" in settings:
            stops = config_file.read_eos(settings, vocabulary)
            read["eos_token_id"] = stops or None if isinstance(settings["eos_token_id"], list) else (*stops, None)[0]
        read |= families.layouts(family, settings, read.get("num_hidden_layers", cls.num_hidden_layers))
        rope = Rope.from_config(settings, family.default_theta)
        config = cls(**read, model_type=model_type, rope=rope)
        if model_type == "llama":
            _check_heads(config, even=True)  # as transformers does, even if head_dim is given
        return config

    def to_dict(self) -> dict[str, Any]:
        """Returns the contents of a Hugging Face config.json, with RoPE in the new and the old format."""
        family = families.of(self.model_type)
        names = {*_COMMON, *(name for name in _BIASES if name in family.settings)}
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name in names}
        if isinstance(self.eos_token_id, tuple):
            settings["eos_token_id"] = list(self.eos_token_id)
        rope = self.rope.to_dict()
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        return {
            "architectures": [family.architecture],
            "model_type": self.model_type,
            **settings,
            **families.written(self.model_type, self.rope_layers, self.sliding_window, self.layer_types),
            "rope_parameters": rope,
            "rope_theta": self.rope.rope_theta,
            "rope_scaling": None if self.rope.rope_type == "default" else scaling,
        }


_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_COUNTS = (*_SIZES, "num_key_value_heads", "head_dim", "max_position_embeddings")
_BIASES = ("attention_bias", "mlp_bias")
# Settings that every family has.
_COMMON = (
    *_COUNTS, "hidden_act", "initializer_range", "rms_norm_eps", "tie_word_embeddings", "bos_token_id", "eos_token_id",
    "pad_token_id",
)  # fmt: skip
_KINDS = {
    **dict.fromkeys(_COUNTS, values.COUNT),
    "num_hidden_layers": values.LAYERS,
    **dict.fromkeys(("tie_word_embeddings", *_BIASES), values.SWITCH),
    "rms_norm_eps": values.POSITIVE,
    "initializer_range": values.NOT_NEGATIVE,
}


def _check_sizes(config: LlamaConfig) -> None:
    for name in _SIZES:
        if getattr(config, name) < 1:
            raise UserError(f"{name} is {getattr(config, name)}: it must be at least 1")


def _check_heads(config: LlamaConfig, even: bool) -> None:
    width, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    if groups < 1 or heads % groups:
        raise UserError(f"num_key_value_heads {groups} does not divide num_attention_heads {heads}: change one of them")
    if even and width % heads:
        raise UserError(f"hidden_size {width} is not a multiple of num_attention_heads {heads}: change one of them")
    if config.head_dim < 1 or config.head_dim % 2:
        raise UserError(f"head_dim {config.head_dim} is odd or below 2, but RoPE rotates pairs: make it even")


def _check(config: LlamaConfig) -> None:
    if config.hidden_act != "silu":
        raise UserError(f"hidden_act {config.hidden_act!r} is not supported: only 'silu' is")
    changes = ("qkv_bias", "qk_norm", *_BIASES, "no_rope_layers", "sliding_window")
    families.check(config.model_type, {name: getattr(config, name) for name in changes})
    for name, allowed in (("remat", _REMAT), ("attention", _ATTENTION)):
        if getattr(config, name) not in allowed:
            raise UserError(f"{name} {getattr(config, name)!r} is unknown: use one of {', '.join(allowed)}")
    if config.half_products and config.dtype != "float32":
        raise UserError(f"half_products needs activations in float32, but dtype is {config.dtype!r}: leave dtype out")
    for name, least in (("loss_chunk", 0), ("attention_block", 1), ("unroll", 1)):
        if getattr(config, name) < least:
            raise UserError(f"{name} is {getattr(config, name)}: it must be at least {least}")
