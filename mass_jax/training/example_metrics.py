"""Metrics of sampled texts: acceptance, usefulness, truncation, and how well scores and rewards rank examples.

Shape suffixes: N problems, M examples per problem, B examples of all problems.
"""

import collections
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.method import generate, meta_step, objective, policy_gradient
from mass_jax.method.text import Rollout, cut_off
from mass_jax.stats import auc
from mass_jax.tasks.base import Example, Problem, Rejected, Task
from mass_jax.training.rollout import Rollouts


def example_metrics(
    rollouts: Rollouts, tasks: Sequence[Problem], synthetic: generate.SyntheticExamples, output: meta_step.StepOutput
) -> dict[str, float]:
    """Returns the metrics of one step's synthetic examples, over all processes.

    Args:
        rollouts: has the task, and knows which problems this process handles.
        tasks: the problems of all processes.
        synthetic: the examples of this process's problems.
        output: scores and rewards of the step.

    Returns:
        The share of accepted examples, the count of each reason for rejection and, where the task can tell, the share
        of useful examples and the AUC at which scores and rewards rank them.
    """
    feed, count, rows = rollouts.feed, len(tasks), rollouts.feed.rows(len(tasks))
    scores_NM, rewards_NM = feed.get((output.scores_NM, output.rewards_NM), count)
    useful_NM = useful_examples(rollouts.dialogue.task, tasks[rows], synthetic)
    reasons_NM = [[p.reason if isinstance(p, Rejected) else None for p in row] for row in synthetic.parsed_NM]
    known_NM = [[None] * len(row) for row in reasons_NM] if useful_NM is None else useful_NM.tolist()
    own = zip(synthetic.kept_NM.tolist(), reasons_NM, known_NM, scores_NM.tolist(), rewards_NM.tolist(), strict=True)
    kept, reasons, useful, scores, rewards = (
        [value for row in column for value in row]
        for column in zip(*runtime.gather_rows(runtime.mine(rows, list(own))), strict=True)
    )
    metrics = {"kept_share": float(np.mean(kept))}
    counts = collections.Counter(reason for reason in reasons if reason is not None)
    metrics |= {f"rejected/{reason}": float(number) for reason, number in counts.items()}
    if None in useful:
        return metrics
    metrics["useful_share"] = float(np.mean(useful))
    kept_B, useful_B = np.array(kept, bool), np.array(useful, bool)
    for name, values in (("scorer_auc", scores), ("reward_auc", rewards)):
        area = auc(np.array(values)[kept_B], useful_B[kept_B])
        if area is not None:
            metrics[name] = area
    return metrics


def completion_metrics(
    rollouts: Rollouts, tasks: Sequence[Problem], sampled: Mapping[str, Rollout]
) -> dict[str, float]:
    r"""Returns lengths, entropy and truncation of completions, for each kind of rollout, over all processes.

    The entropy of the sampling distribution, in nats per token, is estimated by the samples themselves:

    .. math:: H \approx -\frac{1}{|S|} \sum_{t \in S} \log \pi(y_t)

    where S are the generated tokens. Lengths are in tokens and include the stop token.

    Args:
        rollouts: knows the stop tokens, and which problems this process handles.
        tasks: the problems of all processes.
        sampled: completions [N, M, T] of this process's problems, by kind, such as "examples".

    Returns:
        For each kind: `KIND_cut_off`, `KIND_entropy`, `KIND_length`, `KIND_length_min` and `KIND_length_max`.
    """
    rows, stops = rollouts.feed.rows(len(tasks)), rollouts.solver.config.stop_tokens
    counts = [_counts(rollout, stops).tolist() for rollout in sampled.values()]
    gathered = runtime.gather_rows(runtime.mine(rows, list(zip(*counts, strict=True))))
    metrics: dict[str, float] = {}
    for kind, of_problems in zip(sampled, zip(*gathered, strict=True), strict=True):
        cut, lengths, nats = np.concatenate(of_problems).T
        metrics |= {
            f"{kind}_cut_off": float(cut.mean()),
            f"{kind}_entropy": float(nats.sum() / max(lengths.sum(), 1)),
            f"{kind}_length": float(lengths.mean()),
            f"{kind}_length_min": float(lengths.min()),
            f"{kind}_length_max": float(lengths.max()),
        }
    return metrics


def _counts(rollout: Rollout, stops: Sequence[int]) -> np.ndarray:
    """Returns [N, M, 3]: whether a completion was cut off, its tokens, and minus their log-probability."""
    target_NMT = np.asarray(rollout.text.target_BT) > 0
    nats_NM = -np.sum(np.asarray(rollout.logprobs_BT, np.float64), -1, where=target_NMT)
    return np.stack([cut_off(rollout, stops), target_NMT.sum(-1), nats_NM], -1)


def sampler_metrics(config: Config, sampled: Mapping[str, Rollout]) -> dict[str, float]:
    """Returns the mismatch of an external sampler and the model, by kind of rollout; empty for the native one."""
    level: policy_gradient.RatioLevel = "token" if config.ratio_level == "token" else "sequence"
    metrics: dict[str, float] = {}
    for kind, rollout in sampled.items():
        if rollout.log_ratio_BT is not None:
            rows = objective.flatten_tasks((rollout.log_ratio_BT, rollout.text.target_BT))
            found = jax.device_get(_mismatch(*rows, config.sampler_ratio_cap, level))
            metrics |= {f"{kind}_{name}": float(value) for name, value in found.items()}
    return metrics


_mismatch = jax.jit(policy_gradient.sampler_mismatch, static_argnames=("cap", "level"))


def useful_examples(task: Task, tasks: Sequence[Problem], synthetic: generate.SyntheticExamples) -> np.ndarray | None:
    """Returns which examples [N, M] are useful (False if not parsed); None if the task cannot tell."""
    useful = [
        [isinstance(e, Example) and task.useful(problem, e) for e in row]
        for problem, row in zip(tasks, synthetic.parsed_NM, strict=True)
    ]
    return None if any(label is None for row in useful for label in row) else np.array(useful, bool)
