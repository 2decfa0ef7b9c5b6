"""Evolution strategies: estimates the meta-gradient from outer losses at random meta-parameters."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.errors import UserError
from mass_jax.metagrad import trees
from mass_jax.metagrad.adjoints.base import Adjoint, Aux, BilevelProblem, MetaGradient
from mass_jax.metagrad.trees import PyTree


@dataclasses.dataclass(frozen=True)
class EvolutionStrategies(Adjoint):
    r"""Unbiased for the outer loss smoothed by Gaussian noise; needs no derivative of the inner loop.

    .. math:: \frac{dL_{out}}{d\eta} \approx \frac{1}{2 n \sigma} \sum_{j=1}^{n} \epsilon_j
        \left(L_{out}(\eta + \sigma \epsilon_j) - L_{out}(\eta - \sigma \epsilon_j)\right),
        \quad \epsilon_j \sim \mathcal{N}(0, I)

    The relative standard deviation of the estimate is about :math:`\sqrt{(d + 1) / n}` for d meta-parameters. Pairs are
    evaluated one after another. Memory: P + A, of one inner gradient. Time: (2 n + 1) K gradients and as many outer
    losses. The loop is always unrolled as a whole, so the estimate has no truncation bias, and the persistent form of
    Vicol et al. is not needed.

    Attributes:
        pairs: number n of antithetic pairs, at least 1.
        sigma: standard deviation of the noise, in units of the meta-parameters, positive.
        key: random key of the noise, or an integer seed. Under `jax.vmap`, problems share their noise unless each has a
            key of its own.

    Source: Salimans et al. 2017 (arXiv:1703.03864), section 2; Vicol et al. 2021 (arXiv:2112.13835) for unrolled loops.

    >>> import optax
    >>> from mass_jax import metagrad as mg
    >>> loss = mg.WeightedLoss(lambda params, batch: (params - batch) ** 2)
    >>> out = mg.meta_gradient(loss, lambda p, b: (p - b) ** 2, jnp.float32(0.0), jnp.ones(2), jnp.array([1.0, -1.0]),
    ...                        jnp.float32(1.0), optimizer=optax.sgd(0.25), num_steps=1,
    ...                        adjoint=mg.EvolutionStrategies(pairs=500))
    >>> bool(jnp.linalg.norm(out.meta - jnp.array([-1.0, 1.0])) < 0.2)
    True
    """

    pairs: int = 32
    sigma: float = 0.1
    key: int | jax.Array = 0

    def __post_init__(self) -> None:
        if isinstance(self.pairs, bool) or not isinstance(self.pairs, int | np.integer) or self.pairs < 1:
            raise UserError(f"EvolutionStrategies(pairs={self.pairs!r}) needs an integer of at least 1")
        if not 0 < self.sigma < math.inf:
            raise UserError(f"EvolutionStrategies(sigma={self.sigma!r}) needs a positive, finite standard deviation")

    def apply(self, problem: BilevelProblem) -> MetaGradient:
        """Averages the antithetic differences over the pairs."""
        if problem.wrt_params:
            raise UserError("EvolutionStrategies does not perturb the initial parameters; use MixedMode()")
        active, rest = trees.split(problem.meta)
        leaves, structure = jax.tree.flatten(active)

        def value(noise: list[jax.Array], sign: float) -> jax.Array:
            moved = [leaf + sign * self.sigma * each for leaf, each in zip(leaves, noise, strict=True)]
            meta = trees.merge(jax.tree.unflatten(structure, moved), rest)
            return problem.outer_loss(problem.adapt(meta).params)[0]

        def add(total: list[jax.Array], key: jax.Array) -> tuple[list[jax.Array], None]:
            noise = _noise(key, leaves)
            slope = (value(noise, 1.0) - value(noise, -1.0)) / (2 * self.pairs * self.sigma)
            return [t + slope.astype(each.dtype) * each for t, each in zip(total, noise, strict=True)], None

        key = self.key if isinstance(self.key, jax.Array) else jax.random.key(self.key)
        total, _ = jax.lax.scan(add, [jnp.zeros_like(leaf) for leaf in leaves], jax.random.split(key, self.pairs))
        adapted = problem.adapt(problem.meta)
        outer, outer_aux = problem.outer_loss(adapted.params)
        meta = trees.fill_integers(jax.tree.unflatten(structure, total), problem.meta)
        return MetaGradient(outer, meta, None, Aux(adapted.params, adapted.losses_K, outer_aux, None))


def _noise(key: jax.Array, leaves: list[PyTree]) -> list[jax.Array]:
    """Draws standard normal noise, shaped like the leaves."""
    keys = jax.random.split(key, len(leaves))
    return [jax.random.normal(each, leaf.shape, leaf.dtype) for each, leaf in zip(keys, leaves, strict=True)]
