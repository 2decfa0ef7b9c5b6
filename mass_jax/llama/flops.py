r"""Floating-point operations per problem, from a closed formula.

.. math:: F = 2 P (R + W) + 4 P S

P: weights in matrix products, counting the output head once; R: prompt tokens, each prompt counted once however many
samples share it; W: generated tokens; S: training tokens, summed over inner steps. A forward pass takes 2 P operations
per token and an adapter's gradient 4 P: the forward pass, and the backward pass through frozen weights. The adapter's
own products are negligible, and so is attention over a few dozen tokens. If only the last n blocks carry adapters, with
P_n the weights of those blocks and the head, a training token takes 4 P_n in each of K steps and 2 (P - P_n) once.
"""

import math
from typing import NamedTuple

from mass_jax.llama import LlamaConfig, lora


class Tokens(NamedTuple):
    """Token counts of one problem.

    Attributes:
        read: prompt tokens, R.
        written: generated tokens, W.
        trained: training tokens, S.
    """

    read: float
    written: float
    trained: float


def matmul_weights(config: LlamaConfig, blocks: int | None = None) -> int:
    """Counts the weights that multiply a token in the last `blocks` blocks (None: all) and the output head.

    >>> matmul_weights(LlamaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
    ...                            intermediate_size=4))
    140
    """
    block = sum(math.prod(lora.shape_of(config, name)) for name in lora.TARGETS)
    return (config.num_hidden_layers if blocks is None else blocks) * block + config.hidden_size * config.vocab_size


def flops(config: LlamaConfig, tokens: Tokens, *, inner_steps: int, lora_blocks: int = 0) -> float:
    """Returns the floating-point operations of one problem, by the formula in the module's docstring.

    Args:
        config: the language model.
        tokens: R, W and S.
        inner_steps: K.
        lora_blocks: number of last blocks that carry inner adapters; 0 for all.
    """
    everything = matmul_weights(config)
    adapted = matmul_weights(config, lora_blocks) if lora_blocks else everything
    once = 2.0 * (everything - adapted) / inner_steps
    return 2.0 * everything * (tokens.read + tokens.written) + tokens.trained * (4.0 * adapted + once)
