"""Mapping from the tensors of a Hugging Face checkpoint to leaves of the parameter tree."""

import dataclasses
from collections.abc import Iterator

from mass_jax import projections
from mass_jax.llama import lora
from mass_jax.llama.config import LlamaConfig

_NORMS = ("input_layernorm", "post_attention_layernorm")
_HEAD_NORMS = ("q_norm", "k_norm")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint, and its location in the parameter tree.

    Attributes:
        name: such as "model.layers.3.mlp.up_proj.weight".
        shape: in the file, where a linear layer's weight is [out, in].
        path: keys into the parameter tree.
        layer: index on the leading axis of the stacked leaf, or None if the leaf is not stacked.
        transposed: whether the leaf is [in, out].
    """

    name: str
    shape: tuple[int, ...]
    path: tuple[str, ...]
    layer: int | None = None
    transposed: bool = False


def entries(config: LlamaConfig) -> Iterator[Entry]:
    """Yields every tensor of a checkpoint with this configuration, named as in transformers.

    >>> config = LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=2,
    ...                      intermediate_size=8)
    >>> [(e.name, e.shape) for e in entries(config)][1]
    ('model.layers.0.self_attn.q_proj.weight', (4, 4))
    """
    vocabulary, width = config.vocab_size, config.hidden_size
    yield Entry("model.embed_tokens.weight", (vocabulary, width), ("embed_tokens", "embedding"))
    for layer in range(config.num_hidden_layers):
        yield from _layer(config, layer)
    yield Entry("model.norm.weight", (width,), ("norm", "weight"))
    if not config.tie_word_embeddings:
        yield Entry("lm_head.weight", (vocabulary, width), ("lm_head", "kernel"), transposed=True)


def _layer(config: LlamaConfig, layer: int) -> Iterator[Entry]:
    prefix = f"model.layers.{layer}"
    for name, projection in projections.TABLE.items():
        parent = projection.parent
        inputs, outputs = lora.shape_of(config, name)
        path = ("layers", parent, name)
        yield Entry(f"{prefix}.{parent}.{name}.weight", (outputs, inputs), (*path, "kernel"), layer, transposed=True)
        if config.has_bias(name):
            yield Entry(f"{prefix}.{parent}.{name}.bias", (outputs,), (*path, "bias"), layer)
    for norm in _HEAD_NORMS if config.qk_norm else ():
        leaf = ("layers", "self_attn", norm, "weight")
        yield Entry(f"{prefix}.self_attn.{norm}.weight", (config.head_dim,), leaf, layer)
    for norm in _NORMS:
        yield Entry(f"{prefix}.{norm}.weight", (config.hidden_size,), ("layers", norm, "weight"), layer)
