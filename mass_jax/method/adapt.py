"""The inner loop: K LoRA steps on weighted examples, with one adapter per problem.

Shape suffixes: N problems, M examples per problem, T tokens.
"""

import dataclasses
import functools
from typing import Any

import jax
import optax

from mass_jax import expression, optax_functions
from mass_jax import metagrad as mg
from mass_jax.llama import lora
from mass_jax.method.groups import divisor, over_tasks
from mass_jax.method.learned_inner import LearnedInner
from mass_jax.method.models import Solver, Weights
from mass_jax.method.text import Text
from mass_jax.types import Adapter, PyTree

DEFAULT_EPS_ROOT = 1e-8  # for shapes only, where no gradient has been measured


def inner_optimizer(text: str, rate: Any, eps_root: Any) -> optax.GradientTransformation:
    """Builds the optimizer of the inner loop.

    Args:
        text: expression, such as "adam" or "clip(1.0) | sgd"; see `mg.parse_optimizer`.
        rate: learning rate, where the expression gives none.
        eps_root: constant under the root of Adam's second moment, where the expression gives none.
    """
    return mg.parse_optimizer(text, rate, eps_root)


def fixed_inner_optimizer(text: str, rate: float, eps_root: float) -> optax.GradientTransformation:
    """Returns `inner_optimizer` for a rate and an eps_root that are numbers, not traced arrays.

    Equal expressions and numbers return the same object, so that equal inner loops share their compiled programs.
    """
    return _fixed(str(expression.parse(text)), rate, eps_root)


@functools.cache
def _fixed(text: str, rate: float, eps_root: float) -> optax.GradientTransformation:
    return inner_optimizer(text, rate, eps_root)


def has_eps_root(text: str) -> bool:
    """Returns whether an inner optimizer takes `eps_root`: its expression has such an argument and gives no number.

    >>> [name for name in optax_functions.COMMON if has_eps_root(name)]
    ['adam', 'adamw', 'amsgrad', 'nadam', 'radam', 'adabelief']
    """
    return optax_functions.depends_on(text, optax_functions.EPS_ROOT)


def has_rate(text: str) -> bool:
    """Returns whether an inner optimizer takes `rate`: its expression gives no learning rate.

    >>> has_rate("sgd"), has_rate("sgd(cosine_decay_schedule(0.2, 4))")
    (True, False)
    """
    return optax_functions.depends_on(text, optax_functions.RATE)


def measures_eps_root(text: str, given: float | None) -> bool:
    """Returns whether eps_root must be measured: a part of the expression takes it and no number is given.

    Args:
        text: the expression.
        given: the number of --inner_eps_root; None for auto.
    """
    return optax_functions.measures(text) or (given is None and has_eps_root(text))


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
        learned: the optimizer as a function of its learned hyperparameters; None if none are learned.
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
    learned: LearnedInner | None = None

    def optimizer_of(self, inner: PyTree) -> optax.GradientTransformation:
        """Returns the optimizer with learned hyperparameters, or as configured if `inner` is None."""
        return self.optimizer if self.learned is None or inner is None else self.learned.build(inner)

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
        optimizer = loop.optimizer_of(weights.inner)
        found = mg.adapt(inner_loss, start, scores_M, rows, optimizer=optimizer, num_steps=loop.num_steps)
        return found.params.leaves

    leaves = lora.checked(adapters, batched=True).leaves
    return adapters.many(over_tasks(one, loop.tasks_at_a_time, leaves, scores_NM, examples))
