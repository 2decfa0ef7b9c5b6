"""Rewards of rejected texts: those that do not parse, copy the target problem, do not fit, or were cut off.

Shape suffixes: N problems, M texts per problem, T tokens.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from mass_jax.method.text import Rollout, Text

MARGIN = 0.01
"""Smallest distance between a rejected text and the worst accepted one, in nats."""


@dataclasses.dataclass(frozen=True)
class RejectedReward:
    r"""Rule for the rewards of rejected texts, which have no effect on the outer loss.

    A number is their reward in every group; 0 is the marginal reward of a text without effect, as in the paper. With
    "worst", they rank below every accepted example of their group. With A the accepted examples of one group,

    .. math:: r_{rejected} = \min(0, \min_{i \in A} r_i) - \delta, \qquad
        \delta = \mathrm{std}_{i \in A}\, r_i + \max(\epsilon, 0.01)

    where :math:`\epsilon` is the floor of the standard deviation in the advantages. The first term of the margin
    separates advantages at any scale of the rewards; the second one where all accepted examples have the same reward or
    there is only one. For the same reason the advantages of two halves of a group, accepted with equal rewards and
    rejected, are at least 1/3 and -1/3. A group in which everything is rejected gets 0 and does not train. The
    minimum with 0, the reward of an example without effect, keeps the distance of a useful group from it, so that
    adding the group's gain to every accepted example makes a difference (`rewards.Gain`).

    Why 0 is not enough: the mean advantage of accepted examples minus that of rejected ones has the sign of the mean
    accepted reward. With a scale-invariant inner optimizer the rewards of a group sum to 0, and where the adaptation
    overshoots they are negative, so that the policy gradient does not raise, or lowers, the probability of text that
    parses. With "worst" it raises this probability in every group that has texts of both kinds.

    Attributes:
        value: "worst" or a number in nats.
        eps: floor of the standard deviation in the advantages.

    >>> RejectedReward("worst", eps=0.0)(jnp.array([[2.0, 1.0, 0.0]]), jnp.array([[True, True, False]]))
    Array([[ 2.  ,  1.  , -0.51]], dtype=float32)
    >>> RejectedReward(0.0)(jnp.array([[-2.0, -1.0, 0.0]]), jnp.array([[True, True, False]]))
    Array([[-2., -1.,  0.]], dtype=float32)
    """

    value: float | Literal["worst"] = "worst"
    eps: float = MARGIN

    def __call__(self, rewards_NM: jax.Array, accepted_NM: jax.Array) -> jax.Array:
        """Returns the rewards with those of rejected texts replaced.

        Args:
            rewards_NM: rewards of all texts.
            accepted_NM: True for examples that were not rejected.
        """
        if self.value != "worst":
            return jnp.where(accepted_NM, rewards_NM, jnp.asarray(self.value, rewards_NM.dtype))
        count_N1 = accepted_NM.sum(-1, keepdims=True)
        deviation_N1 = jnp.std(rewards_NM, axis=-1, keepdims=True, where=accepted_NM | (count_N1 == 0))
        lowest_N1 = jnp.min(rewards_NM, axis=-1, keepdims=True, where=accepted_NM, initial=0)
        level_N1 = lowest_N1 - deviation_N1 - max(self.eps, MARGIN)
        return jnp.where(accepted_NM, rewards_NM, jnp.where(count_N1 == 0, 0, level_N1))


WORST = RejectedReward()


def is_parsed(examples: Text) -> jax.Array:
    """Returns True for examples [N, M] that parsed and fit their rows."""
    return jnp.asarray(examples.target_BT).any(-1)


def is_accepted(examples: Text, generated: Rollout, stop_tokens: Sequence[int]) -> jax.Array:
    """Returns True for examples [N, M] that parsed, and whose text ended with a stop token.

    Args:
        examples: parsed examples in solver form, [N, M, T]; rejected ones are masked.
        generated: rollout of the texts, [N, M, T].
        stop_tokens: tokens that end a completion; if there are none, no text counts as cut off.
    """
    if not stop_tokens:
        return is_parsed(examples)
    text = generated.text
    stopped_NMT = jnp.isin(text.tokens_BT, jnp.asarray(list(stop_tokens))) & (jnp.asarray(text.target_BT) > 0)
    return is_parsed(examples) & stopped_NMT.any(-1)
