"""The inner loop: K LoRA steps on weighted examples, with one adapter per problem.

Shape suffixes: N problems, M examples per problem, T tokens.
"""

import dataclasses
import functools
from typing import Any

import jax
import optax

from mass_jax import metagrad as mg
from mass_jax.config.inner import INNER_OPTIMIZERS
from mass_jax.llama import lora
from mass_jax.method.groups import divisor, over_tasks
from mass_jax.method.models import Solver, Weights
from mass_jax.method.text import Text
from mass_jax.types import Adapter, PyTree

OPTIMIZERS: dict[str, functools.partial[optax.GradientTransformation]] = {
    name: functools.partial(mg.make_optimizer, "sgd", momentum=0.9)
    if name == "momentum"
    else functools.partial(mg.make_optimizer, name)
    for name in INNER_OPTIMIZERS
}
DEFAULT_EPS_ROOT = 1e-8  # for shapes only, where no gradient has been measured


def inner_optimizer(name: str, rate: Any, eps_root: Any) -> optax.GradientTransformation:
    """Builds the optimizer of the inner loop.

    Args:
        name: key of `OPTIMIZERS`.
        rate: learning rate, constant over the inner steps.
        eps_root: constant under the root of Adam's second moment; optimizers without one ignore it.
    """
    build = OPTIMIZERS[name]
    return build(rate, eps_root=eps_root) if has_eps_root(name) else build(rate)


@functools.cache  # equal numbers return the same object, so that equal inner loops share their compiled programs
def fixed_inner_optimizer(name: str, rate: float, eps_root: float) -> optax.GradientTransformation:
    """Returns `inner_optimizer` for a rate and an eps_root that are numbers, not traced arrays."""
    return inner_optimizer(name, rate, eps_root)


def has_eps_root(name: str) -> bool:
    """Returns whether an inner optimizer has a constant under the root of a second moment.

    >>> [name for name in OPTIMIZERS if has_eps_root(name)]
    ['adam', 'adamw', 'amsgrad', 'nadam', 'radam', 'adabelief']
    """
    return "eps_root" in mg.SUPPORT[OPTIMIZERS[name].args[0]].settings


@dataclasses.dataclass(frozen=True)
class LoraLoop:
    """The inner loop that adapts the language model to one problem.

    Attributes:
        solver: the language model.
        optimizer: inner optimizer, any optax chain.
        num_steps: number of inner steps K.
        rank: rank of the adapter.
        scale: factor on A B, alpha / rank.
        targets: names of the projections that carry adapters.
        adjoint: method by which `meta_step` differentiates through the steps.
        eps_root: constant under the root of the optimizer's second moment, if it has one.
        example_chunk: largest number of examples whose gradients are computed at a time; 0 is all.
        product_chunk: largest number of examples in a Hessian product; 0 is that of `example_chunk`.
        tasks_at_a_time: largest number of problems that are adapted to and differentiated at a time; 0 is all.
    """

    solver: Solver
    optimizer: optax.GradientTransformation
    num_steps: int
    rank: int
    scale: float
    targets: tuple[str, ...]
    adjoint: mg.Adjoint
    eps_root: float = DEFAULT_EPS_ROOT
    example_chunk: int = 0
    product_chunk: int = 0
    tasks_at_a_time: int = 0

    def init_adapters(self, keys_N: jax.Array) -> Adapter:
        """Returns fresh adapters with B = 0, one per key, which leave the model unchanged."""
        return Adapter(jax.vmap(self._init_leaves)(keys_N), self.scale, batched=True)

    def _init_leaves(self, key: jax.Array) -> PyTree:
        """Returns the leaves of one problem's fresh adapter."""
        config = self.solver.config
        blocks = self.solver.inner_blocks or config.num_hidden_layers
        return lora.init(key, dataclasses.replace(config, num_hidden_layers=blocks), self.rank, self.targets).leaves

    def loss(self, weights: Weights, num_examples: int = 0) -> mg.WeightedLoss:
        """Returns L_inner = sum_i s_i l_i as a function of an adapter, scores and examples (`Text` or `Read`).

        Args:
            weights: the generator's weights.
            num_examples: M, to evaluate the loss in chunks of examples; 0 evaluates all of them at once.
        """
        chunk, product_chunk = (
            divisor(num_examples, limit) if 0 < limit < num_examples else None
            for limit in (self.example_chunk, self.product_chunk)
        )
        return mg.WeightedLoss(
            lambda adapter, text: self.solver.completion_nll(weights, text, adapter),
            chunk=chunk,
            product_chunk=product_chunk,
        )


def adapt(loop: LoraLoop, weights: Weights, adapters: Adapter, scores_NM: jax.Array, examples: Text) -> Adapter:
    r"""Adapts the model to each problem on that problem's examples.

    .. math:: \phi_{t+1} = \Upsilon(\nabla_\phi \sum_i s_i \ell_i(\phi_t), \phi_t)

    Args:
        loop: the inner loop.
        weights: the generator's weights; the model that wrote the examples is the one that adapts.
        adapters: fresh adapters, one per problem.
        scores_NM: weight of each example, float32; 1 at test time.
        examples: rows [N, M, T] in solver form.

    Returns:
        Adapted adapters, one per problem.

    Source: the paper, section 2.1, L_inner.
    """

    def one(leaves: PyTree, scores_M: jax.Array, text: Text) -> PyTree:
        inner_loss, start = loop.loss(weights, scores_M.shape[0]), adapters.one(leaves)
        rows = loop.solver.read(weights, text)
        found = mg.adapt(inner_loss, start, scores_M, rows, optimizer=loop.optimizer, num_steps=loop.num_steps)
        return found.params.leaves

    leaves = lora.checked(adapters, batched=True).leaves
    return adapters.many(over_tasks(one, loop.tasks_at_a_time, leaves, scores_NM, examples))
