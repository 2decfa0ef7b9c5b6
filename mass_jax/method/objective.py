"""The generator's objective: L_generator = L_aux + gamma L_solve.

Shape suffixes: N problems, M samples per problem, J solutions per problem, B rows, T tokens.
"""

import dataclasses

import jax

from mass_jax.llama.precision import wide
from mass_jax.method import policy_gradient
from mass_jax.method.models import Solver, Weights
from mass_jax.method.text import Rollout, Text
from mass_jax.types import PyTree


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """Clipped surrogate loss with advantages normalized within each group of samples.

    Attributes:
        solver: the language model.
        clip_ratio: clip range of the policy ratio.
        advantage_eps: floor of the standard deviation in advantages.
        ratio_level: "sequence" or "token"; see `mass_jax.method.policy_gradient.clipped_surrogate`.
        sampler_ratio_cap: largest importance ratio of the model over an external sampler.
    """

    solver: Solver
    clip_ratio: float
    advantage_eps: float
    ratio_level: policy_gradient.RatioLevel
    sampler_ratio_cap: float = 2.0

    def __call__(
        self, weights: Weights, rollout: Rollout, rewards_NM: jax.Array, new_tokens: int
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the mean loss of a rollout [N, M, T], and the share of rows outside the clip range.

        Args:
            weights: the generator's weights.
            rollout: samples; those of a problem share their prompt.
            rewards_NM: rewards of the samples.
            new_tokens: slots for generated tokens in each row.
        """
        return self.of_logprobs(self.logprobs(weights, rollout, new_tokens), rollout, rewards_NM)

    def logprobs(self, weights: Weights, rollout: Rollout, new_tokens: int) -> jax.Array:
        """Returns the log-probabilities [N, M, T] of a rollout's generated tokens under the weights."""

        # Under vmap, problems and rows stay separate axes, which the mesh shards separately.
        def one(text: Text) -> jax.Array:
            return self.solver.continuation_logprobs(weights, text, new_tokens)

        return jax.vmap(one)(rollout.text)

    def of_logprobs(
        self, logprobs_NMT: jax.Array, rollout: Rollout, rewards_NM: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the same as a call, from the log-probabilities of the rollout under the weights."""
        advantages_NM = policy_gradient.group_advantages(rewards_NM.astype(wide(rewards_NM.dtype)), self.advantage_eps)
        logprobs_BT, (text, old_BT, log_ratio_BT) = flatten_tasks((logprobs_NMT, rollout))
        weights_BT = None
        if log_ratio_BT is not None:
            weights_BT = policy_gradient.truncated_ratios(
                log_ratio_BT, text.target_BT, self.sampler_ratio_cap, self.ratio_level
            )
        losses_B = policy_gradient.clipped_surrogate(
            logprobs_BT,
            old_BT,
            text.target_BT,
            advantages_NM.reshape(-1),
            clip_ratio=self.clip_ratio,
            level=self.ratio_level,
            weights_BT=weights_BT,
        )
        return losses_B.mean(), policy_gradient.clip_fraction(
            logprobs_BT, old_BT, text.target_BT, clip_ratio=self.clip_ratio
        )


@dataclasses.dataclass(frozen=True)
class GeneratorObjective:
    r"""The objective L_generator as a function of the generator's weights.

    .. math:: L_{generator} = L_{aux} + \gamma L_{solve} + \beta\, \mathrm{KL}(\pi_\theta \,\|\, \pi_0)

    The paper has no KL term (beta = 0). It keeps L_solve, which trains the weights that also write the examples, from
    pulling the generator toward the form of bare answers; the divergence is estimated on the generated examples.

    L_aux is the clipped surrogate with the rewards of the examples. L_solve is the cross-entropy of the gold solution,
    or the same surrogate over the k attempts with binary rewards and pi_old := pi_theta', the adapted model that
    sampled them.

    Attributes:
        surrogate: the clipped surrogate.
        example_tokens: slots for generated tokens in the rows of examples.
        answer_tokens: slots for generated tokens in the rows of attempts.
        gold: whether solutions are gold; otherwise they are attempts.
        gamma: weight of L_solve.
        kl_coef: weight beta of the KL divergence from the generator before training.
        reward_examples: False drops L_aux, so that the generator is not rewarded for its examples (a control).

    Source: the paper, section 2.3.
    """

    surrogate: Surrogate
    example_tokens: int
    answer_tokens: int
    gold: bool
    gamma: float
    kl_coef: float = 0.0
    reward_examples: bool = True

    def __call__(
        self,
        weights: Weights,
        generated: Rollout,
        rewards_NM: jax.Array,
        solutions: Rollout,
        right_NJ: jax.Array,
        start_logprobs_NMT: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the scalar loss, and its terms as metrics.

        Args:
            weights: the generator's weights, with respect to which the loss is differentiated.
            generated: rollout of the examples, [N, M, T].
            rewards_NM: rewards of the examples, treated as constants.
            solutions: gold solutions (J = 1) or attempts, [N, J, T].
            right_NJ: 1 for correct attempts.
            start_logprobs_NMT: log-probabilities of the examples' tokens before training; required if kl_coef > 0.
        """
        logprobs_NMT = self.surrogate.logprobs(weights, generated, self.example_tokens)
        aux_loss, clipped = self.surrogate.of_logprobs(logprobs_NMT, generated, rewards_NM)
        if self.gold:
            nll_NJ = jax.vmap(lambda text: self.surrogate.solver.completion_nll(weights, text))(solutions.text)
            solve_loss = nll_NJ.mean()
        else:
            solve_loss, solve_clipped = self.surrogate(weights, solutions, right_NJ, self.answer_tokens)
        total = self.gamma * solve_loss
        if self.reward_examples:
            total += aux_loss
        terms = {"aux_loss": aux_loss, "solve_loss": solve_loss, "clip_ratio": clipped}
        if self.kl_coef:
            rows = flatten_tasks((logprobs_NMT, start_logprobs_NMT, generated.text.target_BT))
            terms["kl_loss"] = policy_gradient.kl_to_start(*rows)
            total += self.kl_coef * terms["kl_loss"]
        terms["loss"] = total
        return total, terms if self.gold else terms | {"solve_clip_ratio": solve_clipped}


def flatten_tasks(tree: PyTree) -> PyTree:
    """Merges the problem and sample axes: [N, M, ...] to [N * M, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)
