r"""What a question costs in floating-point operations, by a formula that a reader can check.

.. math:: F = 2 P (R + W) + 4 P S

P: weights in matrix products, the head's once; R: tokens read (each prompt once, however many samples share it);
W: tokens written; S: tokens trained on, summed over inner steps. A forward pass takes 2 P a token, an adapter's
gradient 4 P: the forward pass, and the backward pass through frozen products. The adapter's own products are small
beside these, and so is attention over rows of some dozens of tokens. Where only the last blocks carry adapters, with
P_n for their weights and the head's, a trained token takes 4 P_n in each of K steps and 2 (P - P_n) once for all.
"""

from typing import NamedTuple

from mass_jax.llama import LlamaConfig


class Tokens(NamedTuple):
    """Tokens of one question: R, W and S."""

    read: float
    written: float
    trained: float


def matmul_weights(config: LlamaConfig, blocks: int | None = None) -> int:
    """Weights that a token is multiplied by in the last `blocks` blocks (None: all) and the head.

    >>> matmul_weights(LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
    ...                            intermediate_size=4))
    140
    """
    width, features = config.hidden_size, config.head_dim
    attention = width * features * 2 * (config.num_attention_heads + config.num_key_value_heads)
    block = attention + 3 * width * config.intermediate_size
    return (config.num_hidden_layers if blocks is None else blocks) * block + width * config.vocab_size


def flops(config: LlamaConfig, tokens: Tokens, *, inner_steps: int, lora_blocks: int = 0) -> float:
    """Operations of one question; the formula is in the module's docstring.

    Args:
        config: the language model.
        tokens: R, W and S.
        inner_steps: K.
        lora_blocks: last blocks that carry inner adapters; 0 is all.
    """
    everything = matmul_weights(config)
    adapted = matmul_weights(config, lora_blocks) if lora_blocks else everything
    once = 2.0 * (everything - adapted) / inner_steps
    return 2.0 * everything * (tokens.read + tokens.written) + tokens.trained * (4.0 * adapted + once)
