"""Linear projections of a Llama block: the one table that adapters, weight files and sharding rules derive from.

Axes are the logical axes of `mass_jax.runtime.rules`: "embed" (hidden size), "heads" (query heads times head
features), "kv_heads" (key-value heads times head features) and "mlp" (inner features of the MLP).
"""

from typing import NamedTuple


class Projection(NamedTuple):
    """One linear layer of a block.

    Attributes:
        parent: module of the block that holds it, "self_attn" or "mlp".
        inputs: logical axis of its input features.
        outputs: logical axis of its output features.
    """

    parent: str
    inputs: str
    outputs: str


TABLE = {
    "q_proj": Projection("self_attn", "embed", "heads"),
    "k_proj": Projection("self_attn", "embed", "kv_heads"),
    "v_proj": Projection("self_attn", "embed", "kv_heads"),
    "o_proj": Projection("self_attn", "heads", "embed"),
    "gate_proj": Projection("mlp", "embed", "mlp"),
    "up_proj": Projection("mlp", "embed", "mlp"),
    "down_proj": Projection("mlp", "mlp", "embed"),
}
NAMES = tuple(TABLE)
