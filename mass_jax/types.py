"""Types of trees of arrays in public signatures.

`PyTree` and `Params` are `Any` to a static type checker, since pytrees have no closed type, and tell readers which tree
is meant. `Adapter` is a class; `mass_jax.llama.lora` has the functions on it.
"""

import dataclasses
import functools

import jax

from mass_jax.aliases import Params, PyTree, Tokenizer

__all__ = ["Adapter", "Params", "PyTree", "Tokenizer"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=("leaves",), meta_fields=("scale", "batched"))
@dataclasses.dataclass(frozen=True, eq=False)
class Adapter:
    r"""One LoRA adapter, or one per task.

    .. math:: x W + \text{scale} \cdot x A B

    An adapter is a pytree whose only leaves are the matrices A and B, so it can be an argument of `jax.jit`, of
    `jax.grad` and of optimizers; the scale is static and stays constant.

    The flag is static too: `jax.vmap`, `jax.lax.map` and `jax.lax.scan` add or remove an axis of the leaves and cannot
    change it. Map over `adapter.leaves`, and rebuild the adapter with `one` inside the mapped function and with `many`
    outside. Functions that use an adapter compare the rank of its leaves with the flag (`lora.checked`), so that an
    adapter mapped as a whole raises an error instead of giving a wrong result.

    Attributes:
        leaves: {"layers": {"self_attn": {"q_proj": {"a": [L, in, R], "b": [L, R, out]}, ...}, "mlp": {...}}}; with a
            leading axis of tasks if batched.
        scale: factor on A B, alpha / rank for LoRA or alpha / sqrt(rank) for rsLoRA (Kalajdzievski 2023).
        batched: whether there is one adapter per task or prompt, instead of one shared by all.

    >>> import jax.numpy as jnp
    >>> tasks = Adapter({"a": jnp.ones((5, 2, 4, 1)), "b": jnp.ones((5, 2, 1, 4))}, scale=2.0, batched=True)
    >>> doubled = tasks.many(jax.vmap(lambda leaves: jax.tree.map(jnp.add, leaves, leaves))(tasks.leaves))
    >>> doubled.leaves["a"].shape, doubled.scale, doubled.batched
    ((5, 2, 4, 1), 2.0, True)
    """

    leaves: PyTree
    scale: float = 1.0
    batched: bool = False

    def one(self, leaves: PyTree) -> "Adapter":
        """Returns an adapter of one task with this scale, as in a function that `jax.vmap` maps over the leaves."""
        return Adapter(leaves, self.scale, batched=False)

    def many(self, leaves: PyTree) -> "Adapter":
        """Returns adapters of this scale, one per task, as from leaves that `jax.vmap` returned."""
        return Adapter(leaves, self.scale, batched=True)
