r"""Rewards of synthetic examples: the paper's marginal reward and three alternatives, one class each.

Throughout, :math:`L(s)` is the outer loss of the adapted model as a function of the scores of one problem's examples,
and :math:`L(0)` that of the model without adaptation.

Shape suffixes: N problems, M examples per problem, P quadrature points.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np


class ScoreLoss(NamedTuple):
    """Outer loss of each problem as a function of the scores [N, M] of its examples.

    Attributes:
        value: returns the losses [N], in nats per token; adapts once.
        gradient: returns their derivatives with respect to the scores, [N, M].
    """

    value: Callable[[jax.Array], jax.Array]
    gradient: Callable[[jax.Array], jax.Array]


class Reward(Protocol):
    """Reward of each example for its problem.

    Attributes:
        is_change: whether a reward is a change of the loss, in nats per token; otherwise it is a derivative, in nats
            per token and unit of score.
    """

    is_change: ClassVar[bool]

    def __call__(self, loss: ScoreLoss, scores_NM: jax.Array, gradient_NM: jax.Array, kept_NM: jax.Array) -> jax.Array:
        """Returns the rewards [N, M]; 0 for an example that was rejected.

        Args:
            loss: outer loss as a function of the scores.
            scores_NM: scores of the examples.
            gradient_NM: `loss.gradient(scores_NM)`, which the scorer needs anyway.
            kept_NM: True for examples that parsed, on which the inner loop trains.
        """


@dataclasses.dataclass(frozen=True)
class Marginal:
    r"""Effect of a little more weight on the example, the paper's reward; costs nothing beyond the meta-gradient.

    .. math:: r_i = -\partial L / \partial s_i

    The unit is nats per token and unit of score.

    Source: the paper, section 2.3.
    """

    is_change: ClassVar[bool] = False

    def __call__(self, loss: ScoreLoss, scores_NM: jax.Array, gradient_NM: jax.Array, kept_NM: jax.Array) -> jax.Array:
        """Returns the rewards [N, M]."""
        return -gradient_NM


@dataclasses.dataclass(frozen=True)
class Path:
    r"""Share of the example in the gain of the whole adaptation; costs P more meta-gradients.

    .. math:: r_i = -s_i \int_0^1 \frac{\partial L}{\partial s_i}(\alpha s)\, d\alpha, \qquad
        \sum_i r_i = L(0) - L(s)

    The integral follows the weights from no adaptation to the full weight, so the rewards of a problem sum to the gain
    of its adaptation: a useful group is rewarded as a group. The sum is exact up to the error of the Gauss-Legendre
    quadrature, and needs a loss that is smooth along the path. The unit is nats per token.

    Attributes:
        points: number of quadrature points P.

    Source: Aumann and Shapley 1974, Values of Non-Atomic Games; Sundararajan et al. 2017 (integrated gradients).

    >>> loss = ScoreLoss(lambda s: jnp.exp(-s.sum(-1)), lambda s: -jnp.exp(-s.sum(-1, keepdims=True)) * jnp.ones(2))
    >>> s = jnp.array([[0.5, 1.5]])
    >>> [round(r, 3) for r in Path(points=4)(loss, s, loss.gradient(s), s > 0)[0].tolist()]
    [0.216, 0.648]
    """

    is_change: ClassVar[bool] = True
    points: int = 3

    def __call__(self, loss: ScoreLoss, scores_NM: jax.Array, gradient_NM: jax.Array, kept_NM: jax.Array) -> jax.Array:
        """Returns the rewards [N, M]."""
        nodes_P, weights_P = np.polynomial.legendre.leggauss(self.points)  # on [-1, 1]
        alphas_P = jnp.asarray((nodes_P + 1) / 2, scores_NM.dtype)
        gradients_PNM = jax.lax.map(lambda alpha: loss.gradient(alpha * scores_NM), alphas_P)
        return -scores_NM * jnp.tensordot(jnp.asarray(weights_P / 2, gradient_NM.dtype), gradients_PNM, axes=1)


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    r"""Increase of the outer loss if the example is left out; costs M + 1 adaptations, one at a time.

    .. math:: r_i = L(s_1, \dots, s_{i-1}, 0, s_{i+1}, \dots, s_M) - L(s)

    It differs from `Marginal` by the curvature of the loss between the score and 0, and does not need a derivative. The
    unit is nats per token.
    """

    is_change: ClassVar[bool] = True

    def __call__(self, loss: ScoreLoss, scores_NM: jax.Array, gradient_NM: jax.Array, kept_NM: jax.Array) -> jax.Array:
        """Returns the rewards [N, M]."""
        count = scores_NM.shape[-1]
        # The last row leaves nothing out; as part of the same program, it rounds like the others.
        left_out = jnp.concatenate([jnp.eye(count, dtype=bool), jnp.zeros((1, count), bool)])
        losses_N = jax.lax.map(lambda out_M: loss.value(jnp.where(out_M, 0, scores_NM)), left_out)
        return jnp.where(kept_NM, (losses_N[:-1] - losses_N[-1]).T, 0)


@dataclasses.dataclass(frozen=True)
class Gain:
    r"""Marginal reward plus the gain of the whole group; costs two more adaptations.

    .. math:: r_i = -\partial L / \partial s_i + L(0) - L(s) \quad \text{for parsed examples}, \qquad
        r_i = 0 \quad \text{for rejected ones}

    The gain is the same for all parsed examples of a problem, so it does not change their order; it places them above
    or below an example that has no effect, whose reward is 0. Rejected examples are compared with that value: see
    `mass_jax.method.rejected`. The gain is not divided by the number of parsed examples, which would lower each reward
    when one more text parses.
    """

    is_change: ClassVar[bool] = False

    def __call__(self, loss: ScoreLoss, scores_NM: jax.Array, gradient_NM: jax.Array, kept_NM: jax.Array) -> jax.Array:
        """Returns the rewards [N, M]."""
        before_N, after_N = jax.lax.map(loss.value, jnp.stack([jnp.zeros_like(scores_NM), scores_NM]))
        return jnp.where(kept_NM, (before_N - after_N)[:, None] - gradient_NM, 0)


MARGINAL = Marginal()
REWARDS = ("marginal", "path", "leave_one_out", "gain")


def make_reward(name: str, path_points: int) -> Reward:
    """Returns a reward by its name in `REWARDS`.

    Args:
        name: the name.
        path_points: number of quadrature points of "path".

    >>> make_reward("path", 5)
    Path(points=5)
    """
    made: dict[str, Reward] = {
        "marginal": Marginal(),
        "path": Path(path_points),
        "leave_one_out": LeaveOneOut(),
        "gain": Gain(),
    }
    return made[name]


def shuffled(key: jax.Array, rewards_NM: jax.Array, accepted_NM: jax.Array) -> jax.Array:
    """Permutes the rewards of each problem's accepted examples (a control); rejected texts keep theirs.

    Args:
        key: random key.
        rewards_NM: rewards of the examples.
        accepted_NM: True for the accepted ones.

    Returns:
        The permuted rewards [N, M].

    >>> shuffled(jax.random.key(0), jnp.array([[1.0, 2.0, 9.0]]), jnp.array([[True, False, False]]))
    Array([[1., 2., 9.]], dtype=float32)
    """
    drawn_NM = jax.random.uniform(key, rewards_NM.shape)
    to_NM = jnp.argsort(~accepted_NM, axis=-1)  # accepted ones first; stable
    from_NM = jnp.argsort(jnp.where(accepted_NM, drawn_NM, 2), axis=-1)
    moved_NM = jnp.take_along_axis(rewards_NM, from_NM, axis=-1)
    return jnp.put_along_axis(rewards_NM, to_NM, moved_NM, axis=-1, inplace=False)
