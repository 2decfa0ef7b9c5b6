"""The inner loop: K LoRA steps on weighted practice examples, one adapter a task.

Letters: N tasks, M examples of a task, T tokens.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from mass_jax import metagrad as mg
from mass_jax.llama import lora
from mass_jax.method.models import Solver, Weights
from mass_jax.method.text import Text

# B = 0 makes dL/dA exactly 0 at the first step, where Adam's sqrt has no derivative; eps_root > 0 mends that.
OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "adam": lambda rate: optax.adam(rate, eps_root=1e-8),
    "adamw": lambda rate: optax.adamw(rate, eps_root=1e-8),
}
ADJOINTS: dict[str, Callable[[], mg.Adjoint]] = {
    "weighted": mg.WeightedMixedMode,
    "mixed": mg.MixedMode,
    "reverse": mg.ReverseUnroll,
    "first_order": mg.FirstOrder,
}


@dataclasses.dataclass(frozen=True)
class LoraLoop:
    """How a task's adapter is made.

    Args:
        solver: the language model.
        optimizer: any optax chain.
        num_steps: K.
        rank, targets: size and places of the adapter.
        adjoint: how `meta_step` differentiates through these steps.
    """

    solver: Solver
    optimizer: optax.GradientTransformation
    num_steps: int
    rank: int
    targets: tuple[str, ...]
    adjoint: mg.Adjoint

    def init_adapters(self, keys_N: jax.Array) -> Any:
        """Fresh adapters with B = 0, one a task (leading axis N): the model starts as the unadapted one."""
        return jax.vmap(self._init_adapter)(keys_N)

    def _init_adapter(self, key: jax.Array) -> Any:
        config = self.solver.config
        blocks = self.solver.inner_blocks or config.num_hidden_layers
        return lora.init(key, dataclasses.replace(config, num_hidden_layers=blocks), self.rank, self.targets)

    def loss(self, weights: Weights) -> mg.WeightedLoss:
        """L_inner = sum_i s_i l_i as a function of one task's adapter, scores and examples (or what was `read`)."""
        return mg.WeightedLoss(lambda adapter, text: self.solver.completion_nll(weights, text, adapter))


def adapt(loop: LoraLoop, weights: Weights, adapters: Any, scores_NM: jax.Array, examples: Text) -> Any:
    r"""Adapts the model to each task on its own examples.

    .. math:: \phi_{t+1} = \Upsilon(\nabla_\phi \sum_i s_i \ell_i(\phi_t), \phi_t)

    Args:
        loop: the inner loop.
        weights: the generator's weights; the model that adapts is the model that wrote.
        adapters: fresh adapters, leading axis N.
        scores_NM: weight of each example; 1 at test time.
        examples: rows [N, M, T] in solver form.

    Returns:
        Adapted adapters, leading axis N.

    Source: the paper, section 2.1, L_inner.
    """

    def one(adapter: Any, scores_M: jax.Array, text: Text) -> Any:
        inner_loss = loop.loss(weights)
        seen = loop.solver.read(weights, text)
        return mg.adapt(inner_loss, adapter, scores_M, seen, optimizer=loop.optimizer, num_steps=loop.num_steps).params

    return jax.vmap(one)(adapters, scores_NM, examples)
