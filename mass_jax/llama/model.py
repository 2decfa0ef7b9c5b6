"""Llama as a Flax (Linen) module: a scan over stacked blocks, with low-rank adapters in a separate collection.

Parameters of the blocks are stacked [L, ...]. Names follow Hugging Face, but kernels are [in, out].

Shape suffixes: B rows, T tokens, D hidden size, V vocabulary, N query heads, K key-value heads, G = N / K, H features
per head, F output features, L layers, R adapter rank.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mass_jax.llama import attention
from mass_jax.llama.config import LlamaConfig
from mass_jax.llama.dense import LORA, AdaptedDense, param_dtype, times_rows
from mass_jax.llama.half_product import is_unbatched
from mass_jax.llama.precision import wide
from mass_jax.llama.rope import frequencies, rotate

FEW = 64  # up to this many tokens, weights are the left operand of a product


class RMSNorm(nn.Module):
    """RMS normalization, x / rms(x) * weight (Zhang and Sennrich 2019, equation 4).

    The mean square is computed in at least float32.

    Attributes:
        epsilon: added to the mean square.
    """

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        weight = self.param("weight", nn.initializers.ones, x.shape[-1:], param_dtype())
        broad = x.astype(wide(x.dtype))
        scale = jax.lax.rsqrt(jnp.mean(jnp.square(broad), axis=-1, keepdims=True) + self.epsilon)
        return weight.astype(x.dtype) * (broad * scale).astype(x.dtype)


class Attention(nn.Module):
    """Grouped-query self-attention with rotary position embeddings, and optionally normalized queries and keys.

    Attributes:
        config: the model's configuration.
    """

    config: LlamaConfig

    def setup(self):
        """Creates submodules and parameters."""
        c = self.config
        linear = functools.partial(
            AdaptedDense, init_range=c.initializer_range, half=c.half_products, half_adapter=c.half_adapters
        )
        self.q_proj = linear(c.has_bias("q_proj"), features=c.num_attention_heads * c.head_dim)
        self.k_proj = linear(c.has_bias("k_proj"), features=c.num_key_value_heads * c.head_dim)
        self.v_proj = linear(c.has_bias("v_proj"), features=c.num_key_value_heads * c.head_dim)
        self.o_proj = linear(c.has_bias("o_proj"), features=c.hidden_size)
        if c.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(c.rms_norm_eps), RMSNorm(c.rms_norm_eps)

    def __call__(
        self, x_BTD: jax.Array, positions_BT: jax.Array, attend: Any, length: int, rope: bool | jax.Array = True
    ) -> tuple[jax.Array, Any]:
        """Projects and rotates the inputs, applies `attend(query, key, value)`, and projects its output.

        Args:
            x_BTD: inputs.
            positions_BT: positions of the tokens.
            attend: attention function; returns its output and a value to pass through, such as a cache.
            length: positions in use, for dynamic RoPE and the sliding window.
            rope: whether to rotate; a traced boolean if a scan runs over layers with and without RoPE.

        Returns:
            The output [B, T, D], and the value that `attend` passed through.

        Raises:
            UserError: the length exceeds the model's sliding window.
        """
        c, lead = self.config, x_BTD.shape[:-1]
        c.check_length(length)
        angles = positions_BT, *frequencies(c.rope, c.head_dim, c.max_position_embeddings, length)
        normalize = (self.q_norm, self.k_norm) if c.qk_norm else (_unchanged, _unchanged)
        query = _rotated(normalize[0](self.q_proj(x_BTD).reshape(*lead, -1, c.head_dim)), angles, rope)
        key = _rotated(normalize[1](self.k_proj(x_BTD).reshape(*lead, -1, c.head_dim)), angles, rope)
        value = self.v_proj(x_BTD).reshape(*lead, -1, c.head_dim)
        mixed, kept = attend(query.reshape(*lead, c.num_key_value_heads, -1, c.head_dim), key, value)
        return self.o_proj(mixed.reshape(*lead, -1)), kept


def _unchanged(x: jax.Array) -> jax.Array:
    """Stands for the norm of models without one."""
    return x


def _rotated(x_BTNH: jax.Array, angles: tuple[Any, ...], rope: bool | jax.Array) -> jax.Array:
    """Applies RoPE where `rope` is true."""
    if rope is False:
        return x_BTNH
    rotated = rotate(x_BTNH, *angles)
    return rotated if rope is True else jnp.where(rope, rotated, x_BTNH)


class MLP(nn.Module):
    """Gated feed-forward layer, (silu(x W_gate) * (x W_up)) W_down (Shazeer 2020, equation 6).

    Attributes:
        config: the model's configuration.
    """

    config: LlamaConfig

    def setup(self):
        """Creates submodules and parameters."""
        c = self.config
        linear = functools.partial(
            AdaptedDense, c.mlp_bias, c.initializer_range, c.half_products, half_adapter=c.half_adapters
        )
        self.gate_proj, self.up_proj = linear(features=c.intermediate_size), linear(features=c.intermediate_size)
        self.down_proj = linear(features=c.hidden_size)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Pre-norm transformer block; can be applied alone to the parameters of one layer.

    Attributes:
        config: the model's configuration.
    """

    config: LlamaConfig

    def setup(self):
        """Creates submodules and parameters."""
        self.self_attn, self.mlp = Attention(self.config), MLP(self.config)
        self.input_layernorm = RMSNorm(self.config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(self.config.rms_norm_eps)

    def __call__(
        self, x_BTD: jax.Array, positions_BT: jax.Array, attend: Any, length: int, rope: bool | jax.Array = True
    ) -> tuple[jax.Array, Any]:
        mixed, kept = self.self_attn(self.input_layernorm(x_BTD), positions_BT, attend, length, rope)
        x_BTD = x_BTD + mixed
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD)), kept


class ScannedBlock(Block):
    """Block with causal self-attention over the whole text, as the body of the scan over layers.

    For a shared prompt, inputs are pairs: the prompt [1, P, D] and its continuations [B, S, D], with a mask [B, P + S].
    """

    def __call__(self, x: Any, positions: Any, mask: Any, rope: bool | jax.Array = True):  # type: ignore[override]
        if not isinstance(x, tuple):
            return self._attending(x, positions, mask, x.shape[1], rope)[0], None
        length = x[0].shape[1] + x[1].shape[1]
        prompt_1PD, earlier = self._attending(x[0], positions[0], mask[0], length, rope)
        return (prompt_1PD, self._attending(x[1], positions[1], mask[1], length, rope, earlier)[0]), None

    def _attending(
        self, x_BTD: jax.Array, positions_BT: jax.Array, mask_BS: Any, length: int, rope: Any, earlier: Any = None
    ):
        """Applies the block, with attention to earlier keys and values too; returns the output, keys and values."""

        def after(old: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.concatenate([jnp.broadcast_to(old, (len(new), *old.shape[1:])), new], axis=1)

        def attend(query_BTKGH, *kept):
            key_BSKH, value_BSKH = kept if earlier is None else map(after, earlier, kept)
            return attention.self_attend(self.config, query_BTKGH, key_BSKH, value_BSKH, mask_BS), kept

        return super().__call__(x_BTD, positions_BT, attend, length, rope)


def _stack_of_blocks(config: LlamaConfig) -> nn.Module:
    saveable = jax.checkpoint_policies
    dots = saveable.save_from_both_policies(saveable.dots_with_no_batch_dims_saveable, is_unbatched)
    policies = {"block": None, "dots": dots if config.half_products else saveable.dots_with_no_batch_dims_saveable}
    block: Any = ScannedBlock
    if config.remat != "none":
        block = nn.remat(block, prevent_cse=False, policy=policies[config.remat])  # the scan keeps the passes apart
    return nn.scan(
        block,
        variable_axes={"params": 0, LORA: 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast, nn.broadcast) if all(config.rope_layers) else (nn.broadcast, nn.broadcast, 0),
        length=config.num_hidden_layers,
        unroll=config.unroll,
        check_constancy_invariants=False,  # the check traces each block twice
    )(config)


class Embedding(nn.Module):
    """Token embedding, a table [V, D]; with tied weights it is also the output head.

    Attributes:
        config: the model's configuration.
    """

    config: LlamaConfig

    def setup(self):
        """Creates submodules and parameters."""
        shape = (self.config.vocab_size, self.config.hidden_size)
        init = nn.initializers.normal(self.config.initializer_range)
        self.embedding = self.param("embedding", init, shape, param_dtype())

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.embedding[tokens].astype(self.config.dtype or self.embedding.dtype)

    def attend(self, hidden: jax.Array) -> jax.Array:
        """Computes logits [..., V] of hidden states [..., D], as the output head with tied weights."""
        half = self.config.half_products
        if half or math.prod(hidden.shape[:-1]) <= FEW:
            return times_rows(hidden, self.embedding, half)
        return jnp.einsum("...D,VD->...V", hidden, self.embedding.astype(hidden.dtype))


class Llama(nn.Module):
    """Decoder-only transformer (Touvron et al. 2023).

    `apply` takes {"params": params}, and for a low-rank adapter also its matrices as "lora" (see `lora.variables`).
    Texts are right-padded and have positions 0 to T - 1; `mask_BT` is true at real tokens.

    Attributes:
        config: architecture and execution settings.

    >>> config = LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=2, num_attention_heads=2,
    ...                      intermediate_size=8)
    >>> tokens_BT = jnp.array([[1, 2, 3]])
    >>> params = jax.jit(Llama(config).init)(jax.random.key(0), tokens_BT)["params"]
    >>> jax.jit(Llama(config).apply)({"params": params}, tokens_BT).shape
    (1, 3, 7)
    """

    config: LlamaConfig

    def setup(self):
        """Creates submodules and parameters."""
        self.embed_tokens = Embedding(self.config)
        self.layers = _stack_of_blocks(self.config)
        self.norm = RMSNorm(self.config.rms_norm_eps)
        if not self.config.tie_word_embeddings:
            c = self.config
            self.lm_head = AdaptedDense(False, c.initializer_range, c.half_products, features=c.vocab_size)

    def __call__(self, tokens_BT: jax.Array, mask_BT: jax.Array | None = None) -> jax.Array:
        """Computes logits [B, T, V] in the activations' dtype; position t predicts token t + 1."""
        return self.head(self.hidden(tokens_BT, mask_BT))

    def hidden(self, tokens_BT: jax.Array, mask_BT: jax.Array | None = None) -> jax.Array:
        """Computes hidden states [B, T, D] after the last norm, the input of `head`."""
        return self.read(self.embed(tokens_BT), mask_BT)

    def read(self, x_BTD: jax.Array, mask_BT: jax.Array | None = None) -> jax.Array:
        """Computes hidden states after the last norm from the blocks' input [B, T, D], such as embeddings."""
        return self.norm(self.blocks(x_BTD, mask_BT))

    def blocks(self, x_BTD: jax.Array, mask_BT: jax.Array | None = None) -> jax.Array:
        """Applies all blocks to [B, T, D], without the last norm."""
        return self.layers(x_BTD, jnp.arange(x_BTD.shape[1])[None], mask_BT, *self._rope_layers())[0]

    def continued_blocks(
        self, x: tuple[jax.Array, jax.Array], length: jax.Array, mask_BS: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Applies all blocks to a prompt [1, P, D] of `length` real tokens and to its continuations [B, S, D]."""
        slots_1P, slots_1S = (jnp.arange(part.shape[1])[None] for part in x)
        mask_1P = slots_1P < length
        mask_BP = jnp.broadcast_to(mask_1P, (len(mask_BS), mask_1P.size))
        masks = mask_1P, jnp.concatenate([mask_BP, mask_BS.astype(bool)], axis=1)
        return self.layers(x, (slots_1P, length + slots_1S), masks, *self._rope_layers())[0]

    def _rope_layers(self) -> tuple[jax.Array, ...]:
        """Returns the argument of each layer that says whether it applies RoPE; none if all do."""
        return () if all(self.config.rope_layers) else (jnp.array(self.config.rope_layers),)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Embeds tokens of any shape."""
        return self.embed_tokens(tokens)

    def final_norm(self, x: jax.Array) -> jax.Array:
        """Applies the norm after the last block."""
        return self.norm(x)

    def head(self, hidden: jax.Array) -> jax.Array:
        """Computes logits [..., V] of hidden states [..., D]."""
        return self.embed_tokens.attend(hidden) if self.config.tie_word_embeddings else self.lm_head(hidden)
