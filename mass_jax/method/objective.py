"""What the generator minimizes: L_generator = L_aux + gamma L_solve.

Letters: N tasks, M samples of a task, J solutions of a task, T tokens.
"""

import dataclasses
from typing import Any

import jax

from mass_jax.llama.precision import wide
from mass_jax.method import policy_gradient
from mass_jax.method.models import Solver, Weights
from mass_jax.method.text import Rollout


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """Group-normalized clipped surrogate of one model's samples.

    Args:
        solver: the language model.
        clip_ratio, advantage_eps, ratio_level: see `mass_jax.method.policy_gradient`.
    """

    solver: Solver
    clip_ratio: float
    advantage_eps: float
    ratio_level: policy_gradient.RatioLevel

    def __call__(self, weights: Weights, rollout: Rollout, rewards_NM: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean loss over a rollout [N, M, T], and the share of rows outside the clip range."""
        advantages_NM = policy_gradient.group_advantages(rewards_NM.astype(wide(rewards_NM.dtype)), self.advantage_eps)
        # Task by task under vmap, so that tasks and rows stay two axes, which a mesh splits apart.
        logprobs_NMT = jax.vmap(lambda text: self.solver.logprobs(weights, text))(rollout.text)
        logprobs_BT, text, old_BT = flatten_tasks((logprobs_NMT, rollout.text, rollout.logprobs_BT))
        losses_B = policy_gradient.clipped_surrogate(
            logprobs_BT,
            old_BT,
            text.target_BT,
            advantages_NM.reshape(-1),
            clip_ratio=self.clip_ratio,
            level=self.ratio_level,
        )
        return losses_B.mean(), policy_gradient.clip_fraction(
            logprobs_BT, old_BT, text.target_BT, clip_ratio=self.clip_ratio
        )


@dataclasses.dataclass(frozen=True)
class GeneratorObjective:
    r"""L_generator as a function of the generator's weights.

    .. math:: L_{generator} = L_{aux} + \gamma L_{solve}

    L_aux is the clipped surrogate of the examples' rewards. L_solve is cross-entropy on the gold solution, or the same
    surrogate over the k attempts with binary rewards and pi_old := pi_theta', the adapted model that sampled them.

    Args:
        surrogate: how samples are reinforced.
        gold: whether solutions are gold ones; else they are attempts.
        gamma: weight of L_solve.
        reward_examples: False drops L_aux (a control: the generator never learns what to write).

    Source: the paper, section 2.3.
    """

    surrogate: Surrogate
    gold: bool
    gamma: float
    reward_examples: bool = True

    def __call__(
        self, weights: Weights, generated: Rollout, rewards_NM: jax.Array, solutions: Rollout, right_NJ: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Scalar loss, and its parts to log.

        Args:
            weights: the generator's weights, differentiated.
            generated: what it wrote, [N, M, T]; `rewards_NM` are constants here.
            solutions: gold solutions (J = 1) or attempts, [N, J, T]; `right_NJ` is 1 for right attempts.
        """
        aux_loss, clipped = self.surrogate(weights, generated, rewards_NM)
        if self.gold:
            nll_NJ = jax.vmap(lambda text: self.surrogate.solver.completion_nll(weights, text))(solutions.text)
            solve_loss = nll_NJ.mean()
        else:
            solve_loss, solve_clipped = self.surrogate(weights, solutions, right_NJ)
        total = self.gamma * solve_loss
        if self.reward_examples:
            total += aux_loss
        parts = {"loss": total, "aux_loss": aux_loss, "solve_loss": solve_loss, "clip_ratio": clipped}
        return total, parts if self.gold else parts | {"solve_clip_ratio": solve_clipped}


def flatten_tasks(tree: Any) -> Any:
    """Joins the task and sample axes: [N, M, ...] to [N * M, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)
